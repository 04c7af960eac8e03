"""The last tenth of each user, on small cases by hand, against a loop and on MovieLens-100K."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interaction_logs import log_of, triples

from recdistill.config.data import DataConfig
from recdistill.data.sources.ml_100k import ml_100k
from recdistill.data.splits.leave_one_out import leave_one_out
from recdistill.data.splits.user_holdout import UserHoldoutOptions, user_holdout
from recdistill.errors import InputError
from recdistill.testing import check_split


def split(log, holdout=0.1):
    return user_holdout(log, UserHoldoutOptions(holdout=holdout))


def test_by_hand():
    rows = [(0, item, item) for item in range(8)] + [(1, 8, 0), (1, 9, 1), (1, 10, 2)]
    train, validation, test = split(log_of(rows), 0.25)
    assert triples(train) == [(0, list(range(end)), end) for end in (1, 2, 3)]
    assert triples(validation) == [(0, [0, 1, 2, 3], 4), (0, [0, 1, 2, 3, 4], 5), (1, [8], 9)]
    assert triples(test) == [(0, list(range(6)), 6), (0, list(range(7)), 7), (1, [8, 9], 10)]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 300), min_size=1, max_size=5),
    hundredths=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_each_user_holds_out_a_share_of_1_to_20(lengths, hundredths, seed):
    user = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(lengths)), lengths))
    user = np.unique(user, return_index=True)[1].argsort().argsort()[user]
    log = log_of([(int(one), item, item // 3) for item, one in enumerate(user)])
    parts = split(log, hundredths / 100)
    for one in range(len(lengths)):
        own = np.flatnonzero(user == one)  # ties keep file order
        count = min(max(1, len(own) * hundredths // 100), 20, (len(own) - 1) // 2)
        border = len(own) - 2 * count
        expected = (own[1:border], own[border : border + count], own[border + count :])
        for samples, targets in zip(parts, expected, strict=True):
            assert samples.targets[samples.user == one].tolist() == targets.tolist()


def test_users_of_few_interactions_are_split_as_by_leave_one_out():
    log = log_of([(user, item, item) for user in range(4) for item in range(3 + 5 * user)])
    for ours, theirs in zip(split(log), leave_one_out(log), strict=True):
        assert [array.tolist() for array in (ours.items, ours.start, ours.end, ours.user)] == [
            array.tolist() for array in (theirs.items, theirs.start, theirs.end, theirs.user)
        ]


@pytest.mark.parametrize("holdout", [0.01, 0.2, 0.34, 0.5])
def test_the_contract_holds_for_any_share(holdout):
    check_split("user-holdout", UserHoldoutOptions(holdout=holdout))


@pytest.mark.parametrize(("holdout", "said"), [(0.0, "greater than 0"), (0.51, "at most 0.5")])
def test_an_impossible_share_is_refused(holdout, said):
    with pytest.raises(InputError, match=f"holdout={holdout}: must be {said}"):
        DataConfig(holdout=holdout)
    with pytest.raises(InputError, match=r"holdout=0\.2: is of split=user-holdout"):
        DataConfig(split="leave-one-out", holdout=0.2)


def test_a_user_with_two_interactions_is_named():
    with pytest.raises(InputError, match=r"log.csv: user u1 has 2 interactions.*split=user-holdout needs 3"):
        split(log_of([(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1), (1, 1, 2)]))


def test_movielens_sizes():
    assert [len(samples) for samples in split(ml_100k(DataConfig()))] == [100_000 - 943 - 2 * 8_233, 8_233, 8_233]
