"""``split=leave-one-out``: each user's last item is for test, the one before for validation."""

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.data.samples import Samples
from recdistill.data.splits.order import Parts, in_order, order_by_time, refuse_short_histories
from recdistill.registry import SPLITS


@SPLITS.register("leave-one-out", least=3)
def leave_one_out(interactions: Interactions) -> Parts:
    """Take each user's last item for test, the one before it for validation, the others but the first for training.

    A validation or test history is all that came before its target. Raises InputError for a user with fewer
    than 3 interactions.
    """
    order = order_by_time(interactions)
    items, user = in_order(interactions, order)
    counts = np.bincount(user, minlength=len(interactions.user_ids))
    refuse_short_histories(interactions, counts, 3, "leave-one-out")
    stop = np.cumsum(counts)
    start = stop - counts
    everyone = np.arange(len(counts))
    position = np.arange(len(items))
    train = position[(position > start[user]) & (position < stop[user] - 2)]
    return (
        Samples(items, start[user[train]], train, user[train]),
        Samples(items, start, stop - 2, everyone),
        Samples(items, start, stop - 1, everyone),
    )
