"""``split=chronological``: the latest tenth of all interactions is for test, the tenth before it for validation."""

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.data.samples import Samples
from recdistill.data.splits.order import Parts, in_order, order_by_time
from recdistill.data.stable_order import stable_order
from recdistill.errors import InputError
from recdistill.registry import SPLITS


@SPLITS.register("chronological")
def chronological(interactions: Interactions) -> Parts:
    """Take the earliest eight tenths of all interactions for training, then one for validation, the last for test.

    A target's history is all earlier interactions of its user, whichever part they are in; a user's first
    interaction has none and is no target. Interactions of the same time keep file order, at the borders too.
    Raises InputError where a part is empty.
    """
    total = len(interactions)
    order = order_by_time(interactions)
    by_time = stable_order(interactions.timestamp)
    rank = np.empty(total, dtype=np.int64)
    rank[by_time] = np.arange(total)
    rank = rank[order]
    items, user = in_order(interactions, order)
    counts = np.bincount(user, minlength=len(interactions.user_ids))
    start = (np.cumsum(counts) - counts)[user]
    has_history = np.arange(total) > start
    borders = (0, total * 8 // 10, total * 9 // 10, total)
    parts = []
    for name, low, high in zip(("training", "validation", "test"), borders[:-1], borders[1:], strict=True):
        end = np.flatnonzero(has_history & (rank >= low) & (rank < high))
        if not len(end):
            raise InputError(
                f"{interactions.source}: split=chronological leaves no {name} sample of {total} "
                "interactions; give more of them, or split=leave-one-out"
            )
        parts.append(Samples(items, start[end], end, user[end]))
    return parts[0], parts[1], parts[2]
