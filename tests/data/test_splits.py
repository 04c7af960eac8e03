"""Leave-one-out and chronological splits, on small cases by hand and on MovieLens-100K."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.interactions import Interactions
from recdistill.data.sources.ml_100k import read_ml100k
from recdistill.data.splits import chronological, leave_one_out, order_by_time
from recdistill.errors import InputError


def interactions(rows: list[tuple[int, int, int]]) -> Interactions:
    """From rows (user, item, timestamp)."""
    user, item, timestamp = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    users, num_items = int(user.max()) + 1, int(item.max()) + 1
    return Interactions(
        user,
        item,
        timestamp,
        tuple(f"u{i}" for i in range(users)),
        tuple(f"i{i}" for i in range(num_items)),
        tuple(f"title {i}" for i in range(num_items)),
        "log.csv",
    )


def pairs(samples) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of each sample."""
    return [
        (int(user), samples.items[start:end].tolist(), int(samples.items[end]))
        for user, start, end in zip(samples.user, samples.start, samples.end, strict=True)
    ]


LOG = interactions([(0, 3, 30), (1, 7, 5), (0, 1, 10), (0, 2, 20), (1, 8, 6), (0, 4, 40), (1, 9, 7)])


def test_leave_one_out_by_hand():
    train, validation, test = leave_one_out(LOG)
    assert pairs(train) == [(0, [1], 2)]
    assert pairs(validation) == [(0, [1, 2], 3), (1, [7], 8)]
    assert pairs(test) == [(0, [1, 2, 3], 4), (1, [7, 8], 9)]


def test_ties_keep_file_order():
    rows = [(0, item, 5) for item in (4, 2, 9, 1)]
    assert pairs(leave_one_out(interactions(rows))[2]) == [(0, [4, 2, 9], 1)]


def test_a_user_with_two_interactions_is_named():
    with pytest.raises(InputError, match=r"log.csv: user u1 has 2 interactions.*min_interactions=3") as caught:
        leave_one_out(interactions([(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1), (1, 1, 2)]))
    assert "\n" not in str(caught.value)


def test_chronological_by_hand():
    rows = [(0, item, item) for item in range(6)] + [(1, 6, 6), (1, 7, 7), (0, 8, 8), (1, 9, 9)]
    train, validation, test = chronological(interactions(rows))
    assert pairs(train) == [(0, list(range(end)), end) for end in range(1, 6)] + [(1, [6], 7)]
    assert pairs(validation) == [(0, [0, 1, 2, 3, 4, 5], 8)]
    assert pairs(test) == [(1, [6, 7], 9)]


def test_chronological_ties_at_the_borders_keep_file_order():
    random = np.random.default_rng(0)
    # Each item stands once; few distinct times, so that both borders fall among ties.
    times = random.integers(7, size=1000).tolist()
    rows = [(int(user), item, times[item]) for item, user in enumerate(random.integers(5, size=1000))]
    by_time = sorted(range(1000), key=lambda item: times[item])  # Python's sort is stable
    _, validation, test = chronological(interactions(rows))
    assert set(validation.targets.tolist()) == set(by_time[800:900])
    assert set(test.targets.tolist()) == set(by_time[900:])


def test_a_user_who_only_comes_late_has_no_sample():
    rows = [(0, item, item) for item in range(19)] + [(1, 19, 100)]
    _, _, test = chronological(interactions(rows))
    assert [user for user, _, _ in pairs(test)] == [0]
    with pytest.raises(InputError, match="no test sample of 10"):
        chronological(interactions([(0, item, item) for item in range(9)] + [(1, 9, 100)]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 6)), min_size=30, max_size=60))
def test_no_split_looks_ahead(rows):
    log = interactions([(user, item, 0) for user in range(4) for item in range(3)] + rows)
    by_user = {
        user: sorted(
            (time, place)
            for place, (u, _, time) in enumerate(zip(log.user, log.item, log.timestamp, strict=True))
            if u == user
        )
        for user in range(4)
    }
    for split in (leave_one_out, chronological):
        try:
            parts = split(log)
        except InputError:
            continue
        targets = []
        latest = -1
        for samples in parts:
            times = []
            for user, start, end in zip(samples.user, samples.start, samples.end, strict=True):
                sequence = by_user[int(user)]
                position = end - start
                expected = [int(log.item[place]) for _, place in sequence[: position + 1]]
                assert samples.items[start : end + 1].tolist() == expected
                targets.append((int(user), int(position)))
                times.append(sequence[position][0])
            if split is chronological:
                assert min(times) >= latest
                latest = max(times)
        assert len(set(targets)) == len(targets)
        assert len(targets) == len(log) - 4  # all but each user's first


def test_movielens_ties_and_float32():
    log = read_ml100k()
    last = np.full(943, -1, dtype=np.int64)
    np.maximum.at(last, log.user, log.timestamp)
    at_last = np.bincount(log.user[log.timestamp == last[log.user]], minlength=943)
    assert (at_last > 1).sum() == 415
    exact = leave_one_out(log)[2]
    rounded_time = log.timestamp.astype(np.float32)
    rounded = log.item[np.lexsort((rounded_time, log.user))]
    assert (exact.targets != rounded[exact.end]).sum() == 149
    assert np.array_equal(log.item[order_by_time(log)], exact.items)


def test_movielens_sizes():
    log = read_ml100k()
    assert [len(samples) for samples in leave_one_out(log)] == [100_000 - 3 * 943, 943, 943]
    parts = chronological(log)
    assert sum(map(len, parts)) == 100_000 - 943
    assert len(parts[2]) <= 10_000
