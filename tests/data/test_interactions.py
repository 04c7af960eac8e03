"""Which users are kept."""

import numpy as np
import pytest

from recdistill.data.interactions import Interactions, keep_users
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


def test_users_with_too_few_interactions_are_left_out():
    kept = keep_users(LOG, min_interactions=2)
    assert kept.user_ids == ("b", "c")
    assert kept.user.tolist() == [0, 1, 0, 1, 0]
    assert kept.item.tolist() == [0, 1, 2, 3, 4]
    assert kept.timestamp.tolist() == [10, 20, 30, 40, 50]
    assert len(kept) == 5


def test_the_first_of_the_users_left_are_kept():
    assert keep_users(LOG, max_users=2).user_ids == ("a", "b")
    assert keep_users(LOG, min_interactions=2, max_users=1).user_ids == ("b",)
    assert keep_users(LOG, max_users=9).user_ids == ("a", "b", "c")


def test_the_catalogue_stays_whole():
    kept = keep_users(LOG, max_users=1)
    assert (kept.item_ids, kept.titles) == (LOG.item_ids, LOG.titles)


def test_no_user_left_is_refused():
    with pytest.raises(InputError, match=r"min_interactions=4: .*log.csv.*most active has 3"):
        keep_users(LOG, min_interactions=4)
