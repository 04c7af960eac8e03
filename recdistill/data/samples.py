"""Next-item samples as pointers into one flat item array, so that every prefix of every user needs no copy."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """N histories, each with its next item.

    Sample i has the history ``items[start[i]:end[i]]``, oldest first and never empty, and the target
    ``items[end[i]]``. ``items`` may reach beyond the samples (splits share it): count targets, not ``items``.

    Attributes:
        items: int64 [T], the users' items one after another, each user's in order of time.
        start: int64 [N], where a sample's history begins.
        end: int64 [N], where its target stands.
        user: int64 [N], the sample's user, an index into ``SequenceData.user_ids``.

    Raises ValueError where shapes differ, a history is empty or a pointer leaves ``items``.
    """

    items: Int64Array
    start: Int64Array
    end: Int64Array
    user: Int64Array

    def __post_init__(self) -> None:
        for name in ("items", "start", "end", "user"):
            array = np.ascontiguousarray(getattr(self, name), dtype=np.int64)
            if array.ndim != 1:
                raise ValueError(f"{name} has {array.ndim} dimensions, not 1")
            object.__setattr__(self, name, array)
        if not len(self.start) == len(self.end) == len(self.user):
            raise ValueError(f"start, end, user: {len(self.start)}, {len(self.end)}, {len(self.user)} samples")
        if len(self.start) and self.start.min() < 0:
            raise ValueError("a history starts before the first item")
        if np.any(self.start >= self.end):
            raise ValueError("a sample has an empty history")
        if len(self.end) and self.end.max() >= len(self.items):
            raise ValueError("a target stands after the last item")

    def __len__(self) -> int:
        return len(self.end)

    @property
    def targets(self) -> Int64Array:
        """The next items, int64 [N]."""
        return self.items[self.end]

    @cached_property
    def target_seen(self) -> NDArray[np.bool_]:
        """Whether a sample's target is in its own history already, bool [N]."""
        order = np.argsort(self.items, kind="stable")
        same = self.items[order[1:]] == self.items[order[:-1]]
        # Where an item stood before, over all users: within a sample's history where that is not before its start.
        before = np.full(len(self.items), -1, dtype=np.int64)
        before[order[1:][same]] = order[:-1][same]
        return before[self.end] >= self.start

    def subset(self, index: ArrayLike) -> "Samples":
        """The samples at ``index`` [n], in that order, over the same flat item array."""
        index = np.asarray(index)
        if not index.size:
            index = index.astype(np.int64)
        return Samples(self.items, self.start[index], self.end[index], self.user[index])

    def windows_of(self, index: ArrayLike, length: int, padding_id: int) -> tuple[Int64Array, Int64Array]:
        """The last ``length`` items of the histories at ``index`` [n].

        Returns the history int64 [n, length], right-padded with ``padding_id``, and the number of real
        items in each row, int64 [n].
        """
        index = np.asarray(index, dtype=np.int64)
        end = self.end[index]
        begin = np.maximum(self.start[index], end - length)
        return gather_windows(self.items, begin, end, length, padding_id), end - begin

    def seen(self, index: ArrayLike) -> tuple[Int64Array, Int64Array]:
        """Every item of the *whole* histories at ``index`` [n], not only of the window a model reads.

        Returns rows int64 [M] (positions in ``index``, ascending) and items int64 [M]; an item bought twice
        stands twice.
        """
        index = np.asarray(index, dtype=np.int64)
        start = self.start[index]
        lengths = self.end[index] - start
        rows = np.repeat(np.arange(len(index), dtype=np.int64), lengths)
        before = np.cumsum(lengths) - lengths
        return rows, self.items[np.arange(len(rows), dtype=np.int64) + np.repeat(start - before, lengths)]


def gather_windows(items: Int64Array, begin: Int64Array, end: Int64Array, length: int, padding_id: int) -> Int64Array:
    """``items[begin[i]:end[i]]`` as rows of int64 [n, length], right-padded; none may exceed ``length``.

    >>> gather_windows(np.arange(10), np.array([3, 0]), np.array([6, 1]), length=4, padding_id=10).tolist()
    [[3, 4, 5, 10], [0, 10, 10, 10]]
    """
    position = begin[:, None] + np.arange(length, dtype=np.int64)
    real = position < end[:, None]
    np.minimum(position, len(items) - 1, out=position)
    return np.where(real, items[position], padding_id)
