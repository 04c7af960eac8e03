"""Held-out samples of some users: whole users, the same ones first whatever the number, and nothing else changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.some_users import held_out_users, of_some_users
from recdistill.errors import InputError


def data_of(validation: list[int], test: list[int]) -> SequenceData:
    """Data whose held-out samples are of these users."""
    items = np.arange(4)

    def samples(users: list[int]) -> Samples:
        size = len(users)
        return Samples(items, np.zeros(size, dtype=np.int64), np.arange(size) % 3 + 1, np.array(users, dtype=np.int64))

    ids = tuple(f"i{item}" for item in range(4))
    return SequenceData("x", "y", 4, ids, ids, ("a",) * 20, samples([0]), samples(validation), samples(test), "f")


users = st.lists(st.integers(0, 9), min_size=1, max_size=30)


@given(users, users, st.integers(1, 12), st.integers(1, 12))
def test_fewer_users_are_a_part_of_more_and_have_all_their_samples(validation, test, one, other):
    data = data_of(validation, test)
    if not set(validation) & set(test):
        for number in {one, other} - {0}:
            if number < len(held_out_users(data)):
                with pytest.raises(InputError, match="no user has samples in both"):
                    of_some_users(data, number)
        return
    fewer, more = (of_some_users(data, number) for number in sorted([one, other]))
    assert set(held_out_users(fewer)) <= set(held_out_users(more))
    assert len(held_out_users(fewer)) == min(one, other, len(held_out_users(data)))
    for found in (fewer, more):
        kept = set(held_out_users(found).tolist())
        assert found.validation.user.tolist() == [user for user in validation if user in kept]
        assert found.test.user.tolist() == [user for user in test if user in kept]
        assert found.test.end.tolist() == data.test.end[np.isin(data.test.user, list(kept))].tolist()
        # A mean over no sample is none.
        assert len(found.validation)
        assert len(found.test)
        assert (found.train, found.fingerprint) == (data.train, "f")


def test_all_users_are_the_data_themselves():
    data = data_of([1, 2, 2], [2, 3])
    assert of_some_users(data, 0) is of_some_users(data, 3) is of_some_users(data, 99) is data
    assert of_some_users(data, 2) is not data
