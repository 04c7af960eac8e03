"""The held-out samples of some users, where those of all are too many for a slow model to rank."""

import hashlib
from dataclasses import replace

import numpy as np

from recdistill.data.samples import Int64Array
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError


def of_some_users(data: SequenceData, number: int) -> SequenceData:
    """The data with the validation and test samples of ``number`` users alone; as they are for 0, or where no more are.

    Users are taken in the order of a digest of their ids, whatever the seed of a run is and the items that it draws:
    what ranks those of more users ranks those of fewer among them, and both can be compared. Users with samples in both
    parts come first. Training and items stay.

    Raises InputError where no user has samples in both parts.
    """
    if not number:
        return data
    users = held_out_users(data)
    if number >= len(users):
        return data
    both = np.isin(users, data.validation.user) & np.isin(users, data.test.user)
    if not both.any():
        raise InputError(
            f"ranked_users={number}: no user has samples in both validation and test, so that some users are no part "
            "of both; give 0"
        )
    order = np.argsort([hashlib.blake2b(data.user_ids[user].encode(), digest_size=8).digest() for user in users])
    order = order[np.argsort(~both[order], kind="stable")]
    chosen = users[order[:number]]
    parts = (samples.subset(np.flatnonzero(np.isin(samples.user, chosen))) for samples in (data.validation, data.test))
    validation, test = parts
    return replace(data, validation=validation, test=test, whole=data.whole or data)


def held_out_users(data: SequenceData) -> Int64Array:
    """The users with validation or test samples, int64, ascending."""
    return np.unique(np.concatenate([data.validation.user, data.test.user]))
