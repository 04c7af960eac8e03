"""Metrics against fractions written by hand."""

from math import log2

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.metrics import hr, metrics_from_ranks, mrr, ndcg

RANKS = torch.tensor([1, 2, 3, 7, 100])


def test_hit_ratio_by_hand():
    assert [hr(RANKS, k) for k in (1, 2, 5, 7, 10, 100)] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5, 4 / 5, 1])


def test_ndcg_by_hand():
    assert ndcg(RANKS, 1) == pytest.approx(1 / 5)
    assert ndcg(RANKS, 3) == pytest.approx((1 + 1 / log2(3) + 1 / 2) / 5)
    assert ndcg(RANKS, 10) == pytest.approx((1 + 1 / log2(3) + 1 / 2 + 1 / 3) / 5)


def test_reciprocal_rank_by_hand():
    assert mrr(RANKS) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 7 + 1 / 100) / 5)


def test_names_of_the_metrics():
    assert set(metrics_from_ranks(RANKS)) == {
        *(f"{name}_at_{k}" for name in ("hr", "ndcg") for k in (1, 5, 10, 20)),
        "mrr",
    }
    assert metrics_from_ranks(RANKS, ks=(3,)) == pytest.approx(
        {"hr_at_3": 3 / 5, "ndcg_at_3": ndcg(RANKS, 3), "mrr": mrr(RANKS)}
    )


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 30))
def test_bounds_and_growth_with_k(ranks, k):
    ranks = torch.tensor(ranks)
    assert 0 <= ndcg(ranks, k) <= hr(ranks, k) <= 1
    assert ndcg(ranks, k) <= ndcg(ranks, k + 1)
    assert hr(ranks, 1) <= mrr(ranks) <= 1


@pytest.mark.parametrize("ranks", [[], [0, 1]])
def test_no_ranks_and_impossible_ranks_are_refused(ranks):
    with pytest.raises(ValueError, match="rank"):
        metrics_from_ranks(torch.tensor(ranks, dtype=torch.int64))
