import dataclasses

import torch

from recdistill.distillation.selection import select


def test_equal_scores_are_ordered_by_the_seed_and_not_by_the_position(signals):
    first, other = (select("all", signals, 0.5, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, other)
    half = len(signals.target) // 2
    assert first[half:].any()
    assert first[:half].sum() < signals.eligible[:half].sum()
    assert torch.equal(select("all", signals, 1.0), signals.eligible)


def test_what_the_student_knows_does_not_matter(signals):
    other = dataclasses.replace(signals, student_loss=signals.student_loss.flip(0), distance=signals.distance.flip(0))
    assert torch.equal(select("all", signals, 0.5), select("all", other, 0.5))
