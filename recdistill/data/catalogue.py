"""The items of a data set, without its interactions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from recdistill.data.samples import Int64Array


@dataclass(frozen=True, eq=False)
class Catalogue:
    """V items, 0 .. V-1.

    Attributes:
        item_ids: V ids as the source writes them.
        titles: V titles.
        item_count: int64 [V], how often each item is a training target.
        retired: int64 [n], ascending, items that a served student no longer recommends; histories may hold them.
        refit_of: of a student that was trained on all interactions, those that are held out to measure on included, the
            id of the run that it refits; '' of every other.
        splitting: the options that say what was held out of the training, as ``{"split": "user-holdout",
            "holdout": 0.1, "k_core": 0}``; empty where that is not known.

    Raises ValueError where their lengths differ.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    item_count: Int64Array
    retired: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    refit_of: str = ""
    splitting: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.titles) == len(self.item_count):
            raise ValueError(
                f"item_ids, titles, item_count: {len(self.item_ids)}, {len(self.titles)}, {len(self.item_count)} items"
            )

    def __len__(self) -> int:
        """V, the number of items."""
        return len(self.item_ids)
