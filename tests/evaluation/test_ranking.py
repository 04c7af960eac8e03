"""Ranks against a plain loop, ties, exclusion, and what must be refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.evaluation.ranking import best_items, rank_among, rank_of_target


def test_ranks_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.1, 0.9, 0.5, 0.7], [3.0, 2.0, 1.0, 0.0]])
    assert rank_of_target(scores, torch.tensor([1, 0, 2])).tolist() == [1, 4, 3]


def test_ties_count_against_the_model():
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert rank_of_target(scores, torch.tensor([0])).item() == 3
    assert rank_of_target(scores, torch.tensor([2])).item() == 3
    assert rank_of_target(torch.zeros(2, 7), torch.tensor([0, 6])).tolist() == [7, 7]


def test_excluded_items_do_not_compete():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    rows, items = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1])
    assert rank_of_target(scores, torch.tensor([2, 3]), (rows, items)).tolist() == [2, 3]


def test_an_excluded_target_is_a_miss_for_it_is_never_recommended():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    rows, items = torch.tensor([0, 0, 1]), torch.tensor([0, 3, 0])
    assert rank_of_target(scores, torch.tensor([0, 1]), (rows, items)).tolist() == [5, 1]


def test_scores_are_left_as_they_were():
    scores = torch.tensor([[4.0, 3.0, 2.0]])
    rank_of_target(scores, torch.tensor([2]), (torch.tensor([0]), torch.tensor([0])))
    assert scores.tolist() == [[4.0, 3.0, 2.0]]


@pytest.mark.parametrize("position", [0, 2])
def test_nan_is_refused_wherever_it_stands(position):
    scores = torch.zeros(1, 3)
    scores[0, position] = float("nan")
    with pytest.raises(InputError, match="NaN") as caught:
        rank_of_target(scores, torch.tensor([0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nan_is_found_among_many_and_in_every_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(9, 301, generator=generator).to(dtype)
    target = torch.randint(301, (9,), generator=generator)
    expected = 1 + (scores >= scores.gather(1, target[:, None])).sum(1) - 1
    assert torch.equal(rank_of_target(scores, target), expected)
    for position in range(0, scores.numel(), 37):
        broken = scores.clone()
        broken.view(-1)[position] = torch.nan
        with pytest.raises(InputError, match="NaN"):
            rank_of_target(broken, target)
    assert rank_of_target(scores[:0], target[:0]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_a_plain_loop(data):
    num_items = data.draw(st.integers(1, 8))
    count = data.draw(st.integers(1, 4))
    item = st.integers(0, num_items - 1)
    # Few distinct values, infinities among them, so that ties are common.
    value = st.sampled_from([-float("inf"), -1.0, 0.0, 2.0, float("inf")])
    scores = [data.draw(st.lists(value, min_size=num_items, max_size=num_items)) for _ in range(count)]
    target = [data.draw(item) for _ in range(count)]
    excluded = data.draw(st.lists(st.tuples(st.integers(0, count - 1), item), max_size=10))
    expected = [
        num_items + 1
        if (row, target[row]) in excluded
        else 1
        + sum(
            scores[row][other] >= scores[row][target[row]]
            for other in range(num_items)
            if other != target[row] and (row, other) not in excluded
        )
        for row in range(count)
    ]
    pairs = torch.tensor(excluded, dtype=torch.int64).reshape(-1, 2)
    ranks = rank_of_target(torch.tensor(scores), torch.tensor(target), (pairs[:, 0], pairs[:, 1]))
    assert ranks.tolist() == expected
    assert ranks.dtype == torch.int64


def test_rank_among_by_hand():
    scores = torch.tensor([[9.0, 1.0, 5.0, 7.0, 3.0]] * 4)
    among = torch.tensor([4, 2, 1])
    excluded = (torch.tensor([1, 3, 3]), torch.tensor([2, 1, 0]))
    # Item 0 is none of them; item 2 is excluded in the second row; item 1 is excluded as its own row's target.
    assert rank_among(scores, torch.tensor([0, 4, 4, 1]), among, excluded).tolist() == [0, 1, 2, 6]
    assert rank_among(scores, torch.tensor([1, 1, 1, 1]), among).tolist() == [3, 3, 3, 3]
    assert rank_among(scores, torch.tensor([0, 1, 2, 3]), among[:0], excluded).tolist() == [0, 0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rank_among_is_the_rank_where_all_others_are_excluded(data):
    num_items, count = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    item = st.integers(0, num_items - 1)
    value = st.sampled_from([-1.0, 0.0, 2.0])
    scores = torch.tensor([data.draw(st.lists(value, min_size=num_items, max_size=num_items)) for _ in range(count)])
    target = torch.tensor([data.draw(item) for _ in range(count)])
    among = data.draw(st.lists(item, unique=True))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, count - 1), item), max_size=10))
    others = [(row, one) for row in range(count) for one in range(num_items) if one not in among]
    excluded, both = (tuple(torch.tensor(one, dtype=torch.int64).reshape(-1, 2).T) for one in (pairs, pairs + others))
    expected = rank_of_target(scores, target, both)
    is_among = torch.tensor([one in among for one in target.tolist()])
    found = rank_among(scores, target, torch.tensor(among, dtype=torch.int64), excluded)
    assert found.tolist() == torch.where(is_among, expected, 0).tolist()


def test_best_items_by_hand():
    scores = torch.tensor([[1.0, 9.0, 5.0, 7.0], [1.0, 9.0, 5.0, 7.0]])
    excluded = (torch.tensor([1, 1]), torch.tensor([1, 3]))
    assert best_items(scores, 2, excluded).tolist() == [[1, 3], [2, 0]]
    # The second row has lost two items: 4 is no item.
    assert best_items(scores, 6, excluded).tolist() == [[1, 3, 2, 0, 4, 4], [2, 0, 4, 4, 4, 4]]
    assert scores.tolist() == [[1.0, 9.0, 5.0, 7.0]] * 2


def test_scores_that_are_one_row_for_all_are_excluded_from_row_by_row():
    """As those of popularity, which are a view of one row."""
    scores = torch.tensor([3.0, 2.0, 1.0]).expand(2, -1)
    best = best_items(scores, 1, (torch.tensor([0]), torch.tensor([0])))
    assert best.tolist() == [[1], [0]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_best_items_are_those_of_the_ranks(data):
    num_items, count = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    item = st.integers(0, num_items - 1)
    scores = torch.tensor([data.draw(st.permutations(range(num_items))) for _ in range(count)]).float()
    target = torch.tensor([data.draw(item) for _ in range(count)])
    pairs = data.draw(st.lists(st.tuples(st.integers(0, count - 1), item), max_size=10))
    excluded = tuple(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T)
    k = data.draw(st.integers(1, 10))
    best, ranks = best_items(scores, k, excluded), rank_of_target(scores, target, excluded)
    assert best.shape == (count, k)
    for row in range(count):
        left_out = {item for one, item in pairs if one == row}
        ranking = sorted(set(range(num_items)) - left_out, key=lambda one: -scores[row, one])
        assert best[row].tolist() == (ranking + [num_items] * k)[:k]
        assert (int(target[row]) in best[row].tolist()) == (int(ranks[row]) <= min(k, num_items))
