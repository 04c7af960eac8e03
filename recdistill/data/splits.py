"""Training, validation and test samples from interactions: leave-one-out or chronological."""

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.data.samples import Int64Array, Samples
from recdistill.errors import InputError

Parts = tuple[Samples, Samples, Samples]


def order_by_time(interactions: Interactions) -> Int64Array:
    """Positions of the interactions by user, each user's by timestamp, ties in file order, int64 [N]."""
    # lexsort is stable, and 415 of MovieLens-100K's 943 users tie at their last timestamp.
    return np.lexsort((interactions.timestamp, interactions.user))


def leave_one_out(interactions: Interactions) -> Parts:
    """Each user's last item is the test target, the one before validation, the rest but the first training.

    A validation or test history is all that came before its target. Raises InputError for a user with fewer
    than 3 interactions.
    """
    order = order_by_time(interactions)
    items, user = interactions.item[order], interactions.user[order]
    counts = np.bincount(user, minlength=len(interactions.user_ids))
    short = np.flatnonzero(counts < 3)
    if len(short):
        raise InputError(
            f"{interactions.source}: user {interactions.user_ids[short[0]]} has {counts[short[0]]} "
            f"interactions (and {len(short) - 1} more users have too few), split=leave-one-out needs 3; "
            "set min_interactions=3"
        )
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


def chronological(interactions: Interactions) -> Parts:
    """The earliest 8 tenths of all interactions are training targets, the next validation, the last test.

    A target's history is all earlier interactions of its user, whichever part they are in; a user's first
    interaction has none and is no target. Interactions at the very same time keep file order, at the borders
    too. Raises InputError where a part is empty.
    """
    total = len(interactions)
    order = order_by_time(interactions)
    by_time = np.argsort(interactions.timestamp, kind="stable")
    rank = np.empty(total, dtype=np.int64)
    rank[by_time] = np.arange(total)
    rank = rank[order]
    items, user = interactions.item[order], interactions.user[order]
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


SPLITS = {"leave-one-out": leave_one_out, "chronological": chronological}
