"""Interactions as a source gives them, before any split."""

from dataclasses import dataclass, replace

import numpy as np

from recdistill.data.samples import Int64Array
from recdistill.errors import InputError


@dataclass(frozen=True, eq=False)
class Interactions:
    """N interactions in file order, over U users and V items.

    Attributes:
        user: int64 [N], 0 .. U-1 by first appearance.
        item: int64 [N], 0 .. V-1 in the catalogue's order.
        timestamp: int64 [N]; only its order matters. Never a float32: seconds since 1970 do not fit, and ties
            made by rounding would move items between splits.
        user_ids, item_ids: ids as the source writes them.
        titles: V titles.
        source: where they come from, for messages.
    """

    user: Int64Array
    item: Int64Array
    timestamp: Int64Array
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.user)


def without_repeats(interactions: Interactions) -> Interactions:
    """Leave out rows that stand twice: of the same user, item and time only the first is kept.

    Says in a line how many there were.
    """
    rows = np.stack([interactions.user, interactions.item, interactions.timestamp], axis=1)
    first = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    repeats = len(rows) - len(first)
    if not repeats:
        return interactions
    print(
        f"data: {repeats:,} of {len(rows):,} interactions of {interactions.source} stand twice (same user, item and "
        "time) and are left out",
        flush=True,
    )
    kept = {name: getattr(interactions, name)[first] for name in ("user", "item", "timestamp")}
    return replace(interactions, **kept)


def keep_users(interactions: Interactions, min_interactions: int = 0, max_users: int = 0) -> Interactions:
    """Leave out the users of fewer than ``min_interactions``, and keep the first ``max_users`` of the others (0: all).

    The catalogue stays whole. Raises InputError where no user is left.
    """
    counts = np.bincount(interactions.user, minlength=len(interactions.user_ids))
    kept = np.flatnonzero((counts >= min_interactions) & (counts > 0))
    if not len(kept):
        most = int(counts.max(initial=0))
        raise InputError(
            f"min_interactions={min_interactions}: leaves no user of {interactions.source}, "
            f"where the most active has {most} interactions; lower it"
        )
    if max_users:
        kept = kept[:max_users]
    renumbered = np.full(len(interactions.user_ids), -1, dtype=np.int64)
    renumbered[kept] = np.arange(len(kept))
    user = renumbered[interactions.user]
    mask = user >= 0
    return Interactions(
        user=user[mask],
        item=interactions.item[mask],
        timestamp=interactions.timestamp[mask],
        user_ids=tuple(interactions.user_ids[position] for position in kept),
        item_ids=interactions.item_ids,
        titles=interactions.titles,
        source=interactions.source,
    )
