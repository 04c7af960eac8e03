import dataclasses

import pytest
import torch

from recdistill.distillation.policies.coverage import coverage
from recdistill.distillation.selection import select


def test_takes_samples_whose_candidates_the_teacher_rarely_recommends(signals):
    samples = len(signals.target)
    candidates = torch.tensor([[0, 1, 2, 3]] * samples)
    candidates[5], candidates[17] = torch.tensor([10, 11, 12, 13]), torch.tensor([0, 1, 2, 14])
    eligible = torch.ones(samples, dtype=torch.bool)
    changed = dataclasses.replace(signals, candidates=candidates, eligible=eligible)
    assert select("coverage", changed, 1 / samples).nonzero().flatten().tolist() == [5]
    assert select("coverage", changed, 2 / samples).nonzero().flatten().tolist() == [5, 17]
    scores = coverage(changed)
    assert scores[17].item() == pytest.approx((3 / 39 + 1) / 4)
    # What the teacher holds for samples that it does not cover is no recommendation.
    eligible[:5] = False
    assert coverage(changed)[17].item() == pytest.approx((3 / 34 + 1) / 4)
