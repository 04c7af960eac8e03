"""Means of the registered metrics."""

from math import log2

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from registered_parts import registries_restored

from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import gains, listed, metric_names, metrics_from_ranks
from recdistill.registry import METRICS

RANKS = torch.tensor([1, 2, 3, 7, 100])


def mean(name: str, ranks: torch.Tensor, k: int | None = None) -> float:
    return gains(name, ranks, k).mean().item()


def test_names_and_means():
    found = metrics_from_ranks(RANKS)
    assert set(found) == {*(f"{name}_at_{k}" for name in ("hr", "ndcg") for k in (1, 5, 10, 20)), "mrr"}
    assert list(found) == metric_names()
    assert found["hr_at_5"] == pytest.approx(3 / 5)
    assert found["ndcg_at_10"] == pytest.approx((1 + 1 / log2(3) + 1 / 2 + 1 / 3) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 7 + 1 / 100) / 5)


def test_the_means_are_those_of_the_formulas_to_the_last_digit():
    ranks = torch.randint(1, 400, (997,), generator=torch.Generator().manual_seed(0))
    found = metrics_from_ranks(ranks)
    for k in (1, 5, 10, 20):
        hit = (ranks <= k).double()
        assert found[f"hr_at_{k}"] == hit.mean().item()
        assert found[f"ndcg_at_{k}"] == (hit / torch.log2(ranks.double() + 1)).mean().item()
    assert found["mrr"] == (1 / ranks.double()).mean().item()


def test_each_metric_is_listed_with_its_cut_offs():
    assert ("hr", 10) in list(listed())
    assert ("mrr", None) in list(listed())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 30))
def test_bounds_and_growth_with_k(ranks, k):
    ranks = torch.tensor(ranks)
    assert 0 <= mean("ndcg", ranks, k) <= mean("hr", ranks, k) <= 1
    assert mean("ndcg", ranks, k) <= mean("ndcg", ranks, k + 1)
    assert mean("hr", ranks, 1) <= mean("mrr", ranks) <= 1


@pytest.mark.parametrize("ranks", [[], [0, 1]])
def test_no_ranks_and_impossible_ranks_are_refused(ranks):
    with pytest.raises(ValueError, match="rank"):
        metrics_from_ranks(torch.tensor(ranks, dtype=torch.int64))


@pytest.mark.parametrize("bad", [lambda ranks: ranks.double().mean(), lambda ranks: 0 / (ranks.double() - 1)])
def test_a_metric_that_gives_no_number_a_sample_is_named(bad):
    with registries_restored():
        METRICS.register("bad", cut_offs=())(bad)
        with pytest.raises(InputError, match="metric 'bad': gives"):
            gains("bad", RANKS)
    with pytest.raises(InputError, match="metric 'bad' is unknown"):
        gains("bad", RANKS)


def test_a_metric_of_ones_own_is_averaged_with_the_others():
    with registries_restored():
        METRICS.register("median_hit", cut_offs=(3,))(lambda ranks, k: (2 * ranks <= k).double())
        assert metrics_from_ranks(RANKS)["median_hit_at_3"] == pytest.approx(1 / 5)
        assert "median_hit_at_3" in metric_names()


def shifts(ranks, k):
    ranks += 5
    return (ranks <= k).double()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda ranks, k: -ranks.double(), r"gives gains from -100 to -1; bring them into \[0, 1\]"),
        (lambda ranks, k: ranks, r"gives gains from 1 to 100; bring them into \[0, 1\]"),
        (lambda ranks, k: ranks * torch.nan, "gives gains from nan to nan"),
        (lambda ranks, k: 0.5, r"gives a float for ranks \[5\]; give a tensor, a number each"),
        (lambda ranks, k: [1.0 for _ in ranks], r"gives a list for ranks \[5\]"),
        (
            lambda ranks: ranks,
            r"\(test_rank_metrics\.py:\d+\): TypeError: .*; mend it, recdistill",
        ),
        (lambda ranks, k: {}["oh\nno"], r"\(test_rank_metrics\.py:\d+\): KeyError: 'oh\\nno'; mend it"),
    ],
)
def test_what_a_metric_of_ones_own_gives_is_checked(bad, said):
    with registries_restored():
        METRICS.register("bad", cut_offs=(3,))(bad)
        with pytest.raises(InputError, match=f"^metric 'bad':? {said}"):
            metrics_from_ranks(RANKS)


def test_a_metric_of_ones_own_that_works_in_place_changes_no_other():
    ranks, before = RANKS.clone(), metrics_from_ranks(RANKS)
    with registries_restored():
        METRICS.register("aaa", cut_offs=(3,))(shifts)
        assert before.items() <= metrics_from_ranks(ranks).items()
    assert torch.equal(ranks, RANKS)
