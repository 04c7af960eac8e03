"""Which interactions are kept."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interaction_logs import log_of

from recdistill.config.data import DataConfig
from recdistill.data.filters import keep_active, without_repeats
from recdistill.data.interactions import Interactions
from recdistill.errors import InputError

# User a once, user b three times, user c twice.
LOG = Interactions(
    user=np.array([0, 1, 2, 1, 2, 1]),
    item=np.array([5, 0, 1, 2, 3, 4]),
    timestamp=np.arange(6) * 10,
    user_ids=("a", "b", "c"),
    item_ids=tuple("012345"),
    titles=tuple("ABCDEF"),
    source="log.csv",
)


def kept_of(log: Interactions, least: int = 0, **options: int) -> Interactions:
    return keep_active(log, DataConfig(**options), least)


def test_users_with_too_few_interactions_are_left_out(said):
    kept = kept_of(LOG, min_interactions=2)
    assert kept.user_ids == ("b", "c")
    assert kept.user.tolist() == [0, 1, 0, 1, 0]
    assert kept.item.tolist() == [0, 1, 2, 3, 4]
    assert kept.timestamp.tolist() == [10, 20, 30, 40, 50]
    assert len(kept) == 5
    assert said() == ["log.csv: left out 1 of 3 users, with 1 of 6 interactions (min_interactions=2)"]


def test_a_split_may_need_more_of_a_user(said):
    assert kept_of(LOG, least=3).user_ids == ("b",)
    assert said() == ["log.csv: left out 2 of 3 users, with 3 of 6 interactions (split=user-holdout needs 3 of a user)"]
    assert kept_of(LOG, least=2, min_interactions=3).user_ids == ("b",)
    assert said() == ["log.csv: left out 2 of 3 users, with 3 of 6 interactions (min_interactions=3)"]


def test_nothing_is_said_where_nothing_is_left_out(said):
    kept = kept_of(LOG, min_interactions=1, min_item_interactions=1)
    assert (kept.user_ids, kept.item_ids) == (LOG.user_ids, LOG.item_ids)
    kept_of(LOG, max_users=1)
    assert said() == []


def test_the_first_of_the_users_left_are_kept():
    assert kept_of(LOG, max_users=2).user_ids == ("a", "b")
    assert kept_of(LOG, min_interactions=2, max_users=1).user_ids == ("b",)
    assert kept_of(LOG, max_users=9).user_ids == ("a", "b", "c")


def test_the_catalogue_stays_whole_where_nothing_is_asked_of_items():
    kept = kept_of(LOG, max_users=1, min_interactions=2)
    assert (kept.item_ids, kept.titles) == (LOG.item_ids, LOG.titles)


def test_items_with_too_few_interactions_leave_the_catalogue_then_users(said):
    # Item 0 twice, item 1 three times, items 2 and 3 once, item 4 never.
    log = log_of([(0, 0, 1), (0, 1, 2), (1, 1, 1), (1, 2, 2), (2, 0, 1), (2, 1, 2), (2, 3, 3)])
    log = replace(log, item_ids=(*log.item_ids, "i4"), titles=(*log.titles, "title 4"))
    kept = kept_of(log, min_item_interactions=2, min_interactions=2)
    assert (kept.item_ids, kept.titles, kept.user_ids) == (("i0", "i1"), ("title 0", "title 1"), ("u0", "u2"))
    assert (kept.user.tolist(), kept.item.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert said() == [
        "log.csv: left out 1 of 3 users and 3 of 5 items, with 3 of 7 interactions "
        "(min_item_interactions=2, min_interactions=2)"
    ]


ROWS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 5)), min_size=5, max_size=60)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(1, 4), st.integers(0, 4), st.integers(0, 3))
def test_a_core_is_what_leaving_out_one_at_a_time_ends_with(rows, k, at_least, least):
    of_user, rest = max(k, at_least, least), list(rows)
    while True:
        few = next(
            (
                (place, row[place])
                for row in rest
                for place, need in ((0, of_user), (1, k))
                if sum(other[place] == row[place] for other in rest) < need
            ),
            None,
        )
        if few is None:
            break
        rest = [row for row in rest if row[few[0]] != few[1]]
    assume(rest)
    log = log_of(rows)
    log = replace(
        log,
        user=np.unique(log.user, return_inverse=True)[1],
        user_ids=tuple(f"u{user}" for user in np.unique(log.user)),
    )
    kept = kept_of(log, least=least, k_core=k, min_interactions=at_least)
    found = [
        (kept.user_ids[user], kept.item_ids[item], int(time))
        for user, item, time in zip(kept.user, kept.item, kept.timestamp, strict=True)
    ]
    assert found == [(f"u{user}", f"i{item}", time) for user, item, time in rest]
    assert set(kept.item_ids) == {f"i{item}" for _, item, _ in rest}
    assert set(kept.user_ids) == {f"u{user}" for user, _, _ in rest}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"min_interactions": 4},
            r"^min_interactions=4: leaves no user of log.csv, where the most active has 3 interactions; "
            "lower min_interactions, or give users with longer histories$",
        ),
        ({"min_item_interactions": 2}, r"^min_item_interactions=2: leaves no user of log.csv, .*; lower min_item_int"),
        ({"k_core": 2}, r"^k_core=2: leaves no user .*; lower k_core, or"),
        (
            {"k_core": 2, "min_interactions": 3},
            r"^min_interactions=3, k_core=2: leaves no user .*; lower min_interactions or k_core, or",
        ),
        (
            {"least": 4},
            r"^split=user-holdout needs 4 of a user: leaves no user of log.csv, where the most active has 3 "
            "interactions; give users with at least 4 interactions, or another split=$",
        ),
    ],
)
def test_no_user_left_is_refused(options, told):
    with pytest.raises(InputError, match=told) as caught:
        kept_of(LOG, **options)
    assert "\n" not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_of_rows_that_stand_twice_the_first_is_kept(rows):
    kept = without_repeats(log_of(rows))
    expected = list(dict.fromkeys(rows))
    assert list(zip(kept.user.tolist(), kept.item.tolist(), kept.timestamp.tolist(), strict=True)) == expected


def test_how_many_stand_twice_is_said(said):
    without_repeats(log_of([(0, 1, 1), (0, 1, 2), (1, 1, 1)]))
    assert said() == []
    without_repeats(log_of([(0, 1, 1), (0, 1, 1), (0, 1, 1), (0, 1, 2)]))
    assert said() == ["2 of 4 interactions of log.csv stand twice (same user, item and time) and are left out"]


def test_columns_of_the_items_go_with_their_items():
    columns = {"genres": tuple(f"genre {item}" for item in range(len(LOG.item_ids)))}
    log = replace(LOG, item=np.array([5, 0, 3, 0, 3, 4]), item_columns=columns)
    kept = kept_of(log, min_item_interactions=2)
    assert 0 < len(kept.item_ids) < len(log.item_ids)
    assert kept.item_columns == {"genres": tuple(f"genre {log.item_ids.index(item)}" for item in kept.item_ids)}
