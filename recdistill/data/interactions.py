"""Interactions as a source gives them, before any split."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        item_columns: further columns of the items file, by name, V texts each; an empty text where there is none.
    """

    user: Int64Array
    item: Int64Array
    timestamp: Int64Array
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    source: str
    item_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)
