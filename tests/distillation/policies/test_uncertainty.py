import torch

from recdistill.distillation.policies.uncertainty import uncertainty


def test_takes_the_largest_entropies(signals, takes_the_best):
    takes_the_best("uncertainty", signals, signals.student_entropy.tolist())
    assert torch.equal(uncertainty(signals), signals.student_entropy)
