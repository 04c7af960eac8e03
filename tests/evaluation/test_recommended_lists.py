"""Metrics of lists, against definitions written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from registered_parts import registries_restored

from recdistill.errors import InputError
from recdistill.evaluation.metrics.shares import popularity_group
from recdistill.evaluation.rank_metrics import metric_names
from recdistill.evaluation.recommended_lists import RecommendedLists, list_metrics, meanings
from recdistill.registry import METRICS


def drawn_lists(seed: int) -> RecommendedLists:
    drawn = np.random.default_rng(seed)
    num_items = int(drawn.integers(4, 30))
    best = np.full((int(drawn.integers(1, 8)), 12), num_items)
    for row in best:
        size = int(drawn.integers(0, min(12, num_items) + 1))
        row[:size] = drawn.permutation(num_items)[:size]
    counts = drawn.integers(0, 20, num_items)
    counts[0] = 5
    vectors = torch.nn.functional.normalize(torch.from_numpy(drawn.normal(size=(num_items, 3))).float(), dim=1)
    return RecommendedLists(torch.from_numpy(best), torch.from_numpy(counts), vectors)


def by_hand(lists: RecommendedLists, k: int = 10) -> dict[str, float]:
    rows = [[item for item in row[:k] if item < lists.num_items] for row in lists.best.tolist()]
    places = [item for row in rows for item in row]
    counts = lists.item_count.tolist()
    total = sum(counts)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else math.nan

    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    group, before = {}, 0
    for item in order:
        group[item] = -1 if not counts[item] else 2 if 3 * before < total else 1 if 3 * before < 2 * total else 0
        before += counts[item]
    distances = []
    for row in rows:
        pairs = [(one, other) for one in row for other in row if one != other]
        if pairs:
            distances.append(mean([1 - float(lists.vectors[one] @ lists.vectors[other]) for one, other in pairs]))
    return {
        "coverage_at_10": len(set(places)) / len(counts),
        "novelty_at_10": mean([-math.log2((counts[item] + 1) / (total + len(counts))) for item in places]),
        "diversity_at_10": mean(distances),
        "popularity_bias_at_10": mean([counts[item] for item in places]) / (sum(one * one for one in counts) / total),
        "head_share_at_10": mean([group[item] == 2 for item in places]),
        "tail_share_at_10": mean([group[item] == 0 for item in places]),
        "new_share_at_10": mean([counts[item] == 0 for item in places]),
    }


@given(seed=st.integers(0, 10_000))
def test_all_are_what_their_definitions_say(seed):
    lists = drawn_lists(seed)
    assert list_metrics(lists) == pytest.approx(by_hand(lists), nan_ok=True, abs=1e-6)


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_head_and_tail_hold_about_a_third_each_and_new_items_are_neither(counts):
    counts = torch.tensor([*counts, 1])
    group = popularity_group(counts)
    assert ((group == -1) == (counts == 0)).all()
    total = counts.sum()
    assert counts[group == 2].sum() >= total / 3
    assert counts[group == 2].sum() - counts.max() < total / 3
    assert counts[group == 0].sum() <= total / 3 + 1e-6


def test_without_vectors_there_is_no_diversity():
    lists = RecommendedLists(torch.tensor([[0, 1]]), torch.tensor([1, 1]))
    assert math.isnan(list_metrics(lists)["diversity_at_10"])


def test_each_says_what_it_means_in_a_line():
    assert meanings().keys() == list_metrics(drawn_lists(0)).keys()
    assert all(text and "\n" not in text and "{" not in text for text in meanings().values())


def test_metrics_of_ranks_stay_what_they_were():
    assert set(METRICS.names(of=None)) == {"hr", "mrr", "ndcg"}
    assert not set(metric_names()) & list_metrics(drawn_lists(0)).keys()


def empties(lists, k):
    lists.best.fill_(lists.num_items)
    lists.item_count.zero_()
    lists.vectors.zero_()
    return torch.tensor(1.0)


def test_a_metric_of_ones_own_that_works_in_place_changes_no_other():
    lists = drawn_lists(0)
    before = list_metrics(lists)
    with registries_restored():
        METRICS.register("aaa", of="lists", cut_offs=(3, 10), says="lists of {k}")(empties)
        found = list_metrics(lists)
        assert meanings()["aaa_at_3"] == "lists of 3"
    assert (found.pop("aaa_at_3"), found.pop("aaa_at_10")) == (1.0, 1.0)
    assert found == pytest.approx(before, nan_ok=True)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda lists, k: None, r"'bad': gives a NoneType; give one number for all lists"),
        (lambda lists, k: lists.best, r"'bad': gives a Tensor; give one number"),
        (lambda lists, k: math.inf, r"'bad': gives inf; give a finite number, or NaN"),
        (
            lambda lists, k: 1 / 0,
            r"'bad' \(test_recommended_lists\.py:\d+\): ZeroDivisionError: division by zero; ",
        ),
    ],
)
def test_what_a_metric_of_ones_own_gives_is_checked(bad, said):
    with registries_restored():
        METRICS.register("bad", of="lists", cut_offs=(3,), says="none")(bad)
        with pytest.raises(InputError, match=f"^metric {said}"):
            list_metrics(drawn_lists(0))
