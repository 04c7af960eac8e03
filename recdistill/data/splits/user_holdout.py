"""``split=user-holdout``: of each user the last tenth is for test, the tenth before it for validation."""

from dataclasses import dataclass

import numpy as np

from recdistill.config.option import option
from recdistill.data.interactions import Interactions
from recdistill.data.samples import Samples
from recdistill.data.splits.order import Parts, in_order, order_by_time, refuse_short_histories
from recdistill.registry import SPLITS

#: Most test samples of a user, so that the most active do not decide alone.
MOST_OF_A_USER = 20
#: A product as 0.29 * 100 is a hair below the whole number that it stands for.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class UserHoldoutOptions:
    holdout: float = option(
        0.1,
        "share of each user's interactions that is for test, and again for validation: 1 to 20 of them",
        role="data",
        above=0,
        most=0.5,
    )


@SPLITS.register("user-holdout", options=UserHoldoutOptions, least=3)
def user_holdout(interactions: Interactions, options: UserHoldoutOptions) -> Parts:
    """Take the last interactions of each user for test, as many before them for validation, the others for training.

    Of n interactions of a user ``floor(holdout * n)`` are for test, but at least 1 and at most 20, and so many that
    the first one stays for training. A target's history is all that came before it; a user's first interaction has
    none and is no target. Raises InputError for a user with fewer than 3 interactions.
    """
    order = order_by_time(interactions)
    items, user = in_order(interactions, order)
    counts = np.bincount(user, minlength=len(interactions.user_ids))
    refuse_short_histories(interactions, counts, 3, "user-holdout")
    held_out = np.clip((counts * options.holdout + ROUNDING).astype(np.int64), 1, MOST_OF_A_USER)
    held_out = np.minimum(held_out, (counts - 1) // 2)[user]
    stop = np.cumsum(counts)
    start = (stop - counts)[user]
    position = np.arange(len(items))
    later = stop[user] - 1 - position  # interactions of the user that come after this one
    is_test, is_validation = later < held_out, (later >= held_out) & (later < 2 * held_out)
    is_training = (later >= 2 * held_out) & (position > start)
    train, validation, test = map(np.flatnonzero, (is_training, is_validation, is_test))
    return (
        Samples(items, start[train], train, user[train]),
        Samples(items, start[validation], validation, user[validation]),
        Samples(items, start[test], test, user[test]),
    )
