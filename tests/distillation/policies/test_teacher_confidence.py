import dataclasses

import torch

from recdistill.distillation.policies.teacher_confidence import teacher_confidence


def test_takes_the_smallest_distances_of_the_best_candidate(signals, takes_the_best):
    takes_the_best("teacher_confidence", signals, (-signals.distance[:, 0]).tolist())
    # The nearest candidate counts, wherever it stands.
    flipped = dataclasses.replace(signals, distance=signals.distance.flip(1))
    assert torch.equal(teacher_confidence(flipped), teacher_confidence(signals))
