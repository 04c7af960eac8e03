"""A data set after its split: its catalogue, and three parts of next-item samples."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recdistill.data.catalogue import Catalogue
from recdistill.data.samples import Int64Array, Samples, find_seen
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
        item_columns: further columns of the items file, by name, V texts each; an empty text where there is none.
        new_validation, new_test: the items that are *new* in that part, int64, ascending: drawn by ``new_items``, or,
            where none were drawn, all items without a training target.
        splitting: the options that say what is held out, new items apart: the split's name, its own options, and those
            that leave out users and items.
        whole: the data with the held-out samples of all users, where these are of some (`data.some_users`); else None.
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
    item_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    new_validation: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    new_test: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    splitting: Mapping[str, object] = field(default_factory=dict)
    whole: "SequenceData | None" = None

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
        find_seen(parts)
        return float(np.concatenate([samples.target_seen for samples in parts]).mean())

    @property
    def item_count(self) -> Int64Array:
        """How often each item is a training target, int64 [V]: the counts of the DRO propensity (DROS)."""
        return np.bincount(self.train.targets, minlength=self.num_items).astype(np.int64)

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Whether an item is a training target, bool [V]; the own embedding of the others learns nothing."""
        return self.item_count > 0

    def learnt(self, exclude_seen: bool) -> NDArray[np.bool_]:
        """Whether an item is the target of a sample that is learnt from (`trainable`), bool [V].

        Where items come again, one may be a training target of such samples alone as are left out: it is `trained`,
        counted and measured as the others, and nothing is learnt of it.
        """
        index = self.trainable(exclude_seen)
        if index is None:
            return self.trained
        found = np.zeros(self.num_items, dtype=bool)
        found[self.train.targets[index]] = True
        return found

    @property
    def catalogue(self) -> Catalogue:
        """The items alone."""
        return Catalogue(self.item_ids, self.titles, self.item_count, splitting=self.splitting)
