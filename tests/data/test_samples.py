"""Pointers, windows and whole histories against plain slicing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.samples import Samples, find_seen


def prefixes(lengths: list[int]) -> Samples:
    """Every position >= 1 of users with so many items; items are numbered through, so each is unique."""
    starts = np.cumsum([0, *lengths])
    rows = [(starts[u], starts[u] + p, u) for u in range(len(lengths)) for p in range(1, lengths[u])]
    start, end, user = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Samples(np.arange(starts[-1]) * 10, start, end, user)


def test_targets_and_subset():
    samples = prefixes([3, 2])
    assert len(samples) == 3
    assert samples.targets.tolist() == [10, 20, 40]
    chosen = samples.subset([2, 0])
    assert chosen.targets.tolist() == [40, 10]
    assert chosen.user.tolist() == [1, 0]
    assert samples.subset(samples.user == 0).targets.tolist() == [10, 20]
    assert len(samples.subset([])) == 0


def test_windows_by_hand():
    history, length = prefixes([4, 2]).windows_of([2, 0, 3], 2, padding_id=99)
    assert history.tolist() == [[10, 20], [0, 99], [40, 99]]
    assert length.tolist() == [2, 1, 1]


def test_seen_is_the_whole_history():
    rows, items = prefixes([4, 2]).seen([2, 3])
    assert rows.tolist() == [0, 0, 0, 1]
    assert items.tolist() == [0, 10, 20, 40]


def test_nothing_asked_nothing_given():
    samples = prefixes([3])
    history, length = samples.windows_of([], 5, padding_id=9)
    assert history.shape == (0, 5)
    assert length.shape == (0,)
    assert [part.tolist() for part in samples.seen([])] == [[], []]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.integers(1, 12), st.randoms())
def test_windows_and_seen_equal_slices(lengths, length, random):
    samples = prefixes(lengths)
    index = random.sample(range(len(samples)), random.randint(0, len(samples)))
    history, real = samples.windows_of(index, length, padding_id=-1)
    rows, items = samples.seen(index)
    for row, i in enumerate(index):
        full = samples.items[samples.start[i] : samples.end[i]].tolist()
        window = full[-length:]
        assert history[row].tolist() == window + [-1] * (length - len(window))
        assert real[row] == len(window)
        assert items[rows == row].tolist() == full
    assert len(rows) == sum(samples.end[i] - samples.start[i] for i in index)


@pytest.mark.parametrize(
    ("start", "end", "user", "said"),
    [
        ([0], [0], [0], "empty history"),
        ([1], [0], [0], "empty history"),
        ([0], [3], [0], "after the last"),
        ([-1], [1], [0], "before the first"),
        ([0, 0], [1], [0], "samples"),
        ([[0]], [1], [0], "dimensions"),
    ],
)
def test_impossible_pointers_are_refused(start, end, user, said):
    with pytest.raises(ValueError, match=said):
        Samples(np.array([5, 6, 7]), np.array(start), np.array(end), np.array(user))


def test_everything_is_int64():
    samples = Samples(*(np.array(values, dtype=np.int32) for values in ([1, 2], [0], [1], [0])))
    assert {array.dtype for array in (samples.items, samples.start, samples.end, samples.user)} == {np.dtype(np.int64)}


def test_targets_that_stand_apart():
    samples = Samples(np.array([5, 6, 7]), np.array([0, 0]), np.array([3, 2]), np.array([0, 0]), np.array([9, 5]))
    assert samples.targets.tolist() == [9, 5]
    assert samples.target_seen.tolist() == [False, True]
    chosen = samples.subset([1])
    assert (chosen.targets.tolist(), chosen.target.dtype) == ([5], np.dtype(np.int64))
    assert samples.windows_of([0], 2, padding_id=8)[0].tolist() == [[6, 7]]
    assert samples.seen([0, 1])[1].tolist() == [5, 6, 7, 5, 6]


@pytest.mark.parametrize(("end", "target", "said"), [(3, [1], "1, 2 samples"), (4, [1, 2], "ends after the last")])
def test_impossible_targets_are_refused(end, target, said):
    with pytest.raises(ValueError, match=said):
        Samples(np.array([5, 6, 7]), np.array([0, 0]), np.array([1, end]), np.array([0, 0]), np.array(target))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=8), min_size=1, max_size=4), st.integers(0, 2))
def test_a_seen_target_is_one_that_its_own_history_has(users: list[list[int]], first: int) -> None:
    items = np.array([item for user in users for item in user])
    start, end, owner = [], [], []
    begin = 0
    for number, user in enumerate(users):
        for place in range(1 + min(first, len(user) - 2), len(user)):
            start.append(begin + min(first, len(user) - 2))
            end.append(begin + place)
            owner.append(number)
        begin += len(user)
    samples = Samples(items, np.array(start), np.array(end), np.array(owner))
    expected = [items[one] in items[since:one] for since, one in zip(start, end, strict=True)]
    assert samples.target_seen.tolist() == expected
    other = (samples.targets + 1) % 5
    expected = [one in items[since:end] for one, since, end in zip(other, samples.start, samples.end, strict=True)]
    apart = Samples(samples.items, samples.start, samples.end, samples.user, other)
    assert apart.target_seen.tolist() == expected


@given(
    items=st.lists(st.integers(0, 4), min_size=6, max_size=20),
    places=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6),
)
def test_targets_are_seen_where_their_history_has_them(items, places):
    pairs = [(min(one), max(one)) for one in places if min(one) < max(one) < len(items)]
    start, end = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    user = np.zeros(len(pairs), dtype=np.int64)
    parts = [
        Samples(np.array(items), start, end, user),
        Samples(np.array(items), start, end, user, np.array(items)[end]),
    ]
    shared = [Samples(parts[0].items, start, end, user), Samples(parts[0].items, start[::-1], end[::-1], user)]
    expected = [items[last] in items[first:last] for first, last in pairs]
    assert [one.target_seen.tolist() for one in parts] == [expected, expected]
    find_seen(shared)
    assert [one.target_seen.tolist() for one in shared] == [expected, expected[::-1]]
