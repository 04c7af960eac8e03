"""Interactions as a source gives them, before any split."""

from dataclasses import dataclass, replace

from recdistill.data.samples import Int64Array


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

