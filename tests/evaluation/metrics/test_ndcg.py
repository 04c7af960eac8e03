"""NDCG against fractions written by hand."""

from math import log2

import pytest
import torch

from recdistill.evaluation.metrics.ndcg import discounted_gains

RANKS = torch.tensor([1, 2, 3, 7, 100])


def test_gains_of_each_sample():
    assert discounted_gains(RANKS, 10).tolist() == pytest.approx([1, 1 / log2(3), 1 / 2, 1 / 3, 0])
    assert discounted_gains(RANKS, 10).dtype == torch.float64


@pytest.mark.parametrize(
    ("k", "share"),
    [(1, 1 / 5), (3, (1 + 1 / log2(3) + 1 / 2) / 5), (10, (1 + 1 / log2(3) + 1 / 2 + 1 / 3) / 5)],
)
def test_ndcg_by_hand(k, share):
    assert discounted_gains(RANKS, k).mean().item() == pytest.approx(share)
