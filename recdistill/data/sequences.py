"""A data set after its split: its catalogue, and three parts of next-item samples."""

from dataclasses import dataclass

import numpy as np

from recdistill.data.catalogue import Catalogue
from recdistill.data.samples import Int64Array, Samples
from recdistill.errors import InputError


@dataclass(frozen=True, eq=False)
class SequenceData:
    """A data set after its split.

    Attributes:
        name: the data set, e.g. 'ml-100k'; 'frames' where frames were given.
        split: name of the split, e.g. 'leave-one-out'; 'released' where the files came split.
        num_items: V; items are 0 .. V-1.
        titles: V titles, by item.
        item_ids: V ids as the source writes them, by item.
        user_ids: the users' ids as the source writes them, by user.
        train, validation, test: the samples of each part.
        fingerprint: SHA-256 of what was split (`data.fingerprint`).
    """

    name: str
    split: str
    num_items: int
    titles: tuple[str, ...]
    item_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    fingerprint: str

    @property
    def padding_id(self) -> int:
        """V, which pads a history on its right."""
        return self.num_items

    def trainable(self, exclude_seen: bool) -> Int64Array | None:
        """Indices of the training samples to learn from; None for all of them.

        Where seen items are left out of rankings, a target that its history has is never recommended: it teaches
        nothing, and such samples are left out. Raises InputError where none is left.
        """
        if not exclude_seen:
            return None
        seen = self.train.target_seen
        if seen.all():
            raise InputError("every training target is in its own history already; set exclude_seen=false")
        return np.flatnonzero(~seen) if seen.any() else None

    def num_trainable(self, exclude_seen: bool) -> int:
        """How many training samples there are to learn from."""
        index = self.trainable(exclude_seen)
        return len(self.train) if index is None else len(index)

    def seen_target_share(self) -> float:
        """Share of all samples, of every part, whose target is in their own history."""
        parts = (self.train, self.validation, self.test)
        return float(np.concatenate([samples.target_seen for samples in parts]).mean())

    @property
    def item_count(self) -> Int64Array:
        """How often each item is a training target, int64 [V]: the counts of the DRO propensity (DROS)."""
        return np.bincount(self.train.targets, minlength=self.num_items).astype(np.int64)

    @property
    def catalogue(self) -> Catalogue:
        """The items alone."""
        return Catalogue(self.item_ids, self.titles, self.item_count)
