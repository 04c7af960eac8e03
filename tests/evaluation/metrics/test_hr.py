"""The hit ratio against fractions written by hand."""

import pytest
import torch

from recdistill.evaluation.metrics.hr import hits

RANKS = torch.tensor([1, 2, 3, 7, 100])


def test_hits_of_each_sample():
    assert hits(RANKS, 3).tolist() == [1, 1, 1, 0, 0]
    assert hits(RANKS, 3).dtype == torch.float64


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 5), (2, 2 / 5), (5, 3 / 5), (7, 4 / 5), (10, 4 / 5), (100, 1)])
def test_hit_ratio_by_hand(k, share):
    assert hits(RANKS, k).mean().item() == pytest.approx(share)
