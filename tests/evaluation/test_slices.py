import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.slices import equal_groups, history_slices, popularity_slices

COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def test_histories_by_hand():
    slices = history_slices([1, 2, 3, 10, 20, 30, 100, 200, 300])
    assert slices.names == ("1-3 items", "10-30 items", "100-300 items")
    assert slices.member.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_popularity_by_hand():
    slices = popularity_slices([0, 1, 1, 5, 6, 90, 80, 0])
    assert slices.names == ("head (80-90)", "middle (5-6)", "tail (1)", "cold (0)")
    assert slices.member.tolist() == [3, 2, 2, 1, 1, 0, 0, 3]


def test_groups_that_do_not_exist_are_left_out():
    assert popularity_slices([0, 0]).names == ("cold (0)",)
    assert popularity_slices([7, 7, 7]).names == ("head (7)",)
    assert popularity_slices([1, 9]).names == ("head (9)", "tail (1)")
    assert history_slices([4, 4]).names == ("4 items",)
    assert history_slices([]).names == ()


@given(COUNTS)
def test_every_sample_is_in_one_group_and_groups_are_in_order(counts):
    slices = popularity_slices(counts)
    assert set(slices.member.tolist()) == set(range(len(slices.names)))
    values = np.asarray(counts)
    means = [values[slices.member == group].mean() for group in range(len(slices.names))]
    assert means == sorted(means, reverse=True)
    assert ("cold (0)" in slices.names) == (0 in counts)


@given(COUNTS, st.integers(1, 5))
def test_equal_values_stay_together(values, groups):
    member = equal_groups(np.asarray(values), groups)
    assert len({(value, group) for value, group in zip(values, member.tolist(), strict=True)}) == len(set(values))
    assert member.max() < groups


@given(st.integers(3, 40))
def test_groups_of_distinct_values_differ_by_at_most_one(rows):
    sizes = np.bincount(equal_groups(np.arange(rows), 3))
    assert sizes.max() - sizes.min() <= 1
