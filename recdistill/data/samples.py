"""Next-item samples as pointers into one flat item array, so that every prefix of every user needs no copy."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recdistill.data.stable_order import Int64Array, order_of

__all__ = ["Int64Array", "Samples", "before_of_same", "find_seen", "gather_windows"]


@dataclass(frozen=True, eq=False)
class Samples:
    """N histories, each with its next item.

    Sample i has the history ``items[start[i]:end[i]]``, oldest first and never empty, and the target
    ``items[end[i]]``, or ``target[i]`` where targets are given: those of new items, which no history may hold.
    ``items`` may reach beyond the samples (splits share it): count targets, not ``items``.

    Attributes:
        items: int64 [T], the users' items one after another, each user's in order of time.
        start: int64 [N], where a sample's history begins.
        end: int64 [N], where its target stands.
        user: int64 [N], the sample's user, an index into ``SequenceData.user_ids``.
        target: int64 [N], the next items, where they do not stand in ``items``; None where they do.
        number: int64 [N], what seeds that which is drawn for each sample alone: its place in the part that it was taken
            from; None for its place here.

    Raises ValueError where shapes differ, a history is empty or a pointer leaves ``items``.
    """

    items: Int64Array
    start: Int64Array
    end: Int64Array
    user: Int64Array
    target: Int64Array | None = None
    number: Int64Array | None = None

    def __post_init__(self) -> None:
        for name in ("items", "start", "end", "user", *(("target",) if self.target is not None else ())):
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
        if self.target is None:
            if len(self.end) and self.end.max() >= len(self.items):
                raise ValueError("a target stands after the last item")
        elif len(self.target) != len(self.end):
            raise ValueError(f"target, end: {len(self.target)}, {len(self.end)} samples")
        elif len(self.end) and self.end.max() > len(self.items):
            raise ValueError("a history ends after the last item")

    def __len__(self) -> int:
        return len(self.end)

    @property
    def numbers(self) -> Int64Array:
        """What seeds that which is drawn for each sample alone, int64 [N]: the same for it in any subset."""
        return np.arange(len(self)) if self.number is None else self.number

    @property
    def targets(self) -> Int64Array:
        """The next items, int64 [N]."""
        return self.items[self.end] if self.target is None else self.target

    @cached_property
    def target_seen(self) -> NDArray[np.bool_]:
        """Whether a sample's target is in its own history already, bool [N]."""
        # Places by item, then in order: the last place of the target before its sample's end is in the history where
        # it is not before its start.
        if self.target is None:
            return self.seen_by(before_of_same(self.items))
        size = len(self.items) + 1
        places = np.sort(self.items * size + np.arange(len(self.items)))
        of_target = self.targets * size
        last = np.searchsorted(places, of_target + self.end) - 1
        return (last >= 0) & (places[last] >= of_target + self.start)

    def seen_by(self, before: Int64Array) -> NDArray[np.bool_]:
        """`target_seen` of targets that stand in ``items``, by `before_of_same` of these."""
        return before[self.end] >= self.start

    def subset(self, index: ArrayLike) -> "Samples":
        """The samples at ``index`` [n], in that order, over the same flat item array."""
        index = np.asarray(index)
        if not index.size:
            index = index.astype(np.int64)
        target = None if self.target is None else self.target[index]
        return Samples(self.items, self.start[index], self.end[index], self.user[index], target, self.numbers[index])

    def at_most(self, most: int, seed: int) -> "Samples":
        """These samples, or ``most`` of them where there are more, drawn by a generator of its own, in their order."""
        if len(self) <= most:
            return self
        return self.subset(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))

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
        place = np.repeat(start - before, lengths)
        place += np.arange(len(rows), dtype=np.int64)
        return rows, self.items.take(place)


def find_seen(parts: Iterable[Samples]) -> None:
    """Find `Samples.target_seen` of several samples, once for those that share their items."""
    found: dict[int, Int64Array] = {}
    for samples in parts:
        if samples.target is None and "target_seen" not in vars(samples):
            before = found.get(id(samples.items))
            if before is None:
                before = found[id(samples.items)] = before_of_same(samples.items)
            vars(samples)["target_seen"] = samples.seen_by(before)


def before_of_same(items: Int64Array) -> Int64Array:
    """The last place before each [T] that holds the same item, int64 [T]; -1 where there is none.

    >>> before_of_same(np.array([5, 7, 5, 5])).tolist()
    [-1, -1, 0, 2]
    """
    order = order_of(items)
    same = items[order[1:]] == items[order[:-1]]
    found = np.full(len(items), -1, dtype=np.int64)
    found[order[1:][same]] = order[:-1][same]
    return found


def gather_windows(items: Int64Array, begin: Int64Array, end: Int64Array, length: int, padding_id: int) -> Int64Array:
    """``items[begin[i]:end[i]]`` as rows of int64 [n, length], right-padded; none may exceed ``length``.

    >>> gather_windows(np.arange(10), np.array([3, 0]), np.array([6, 1]), length=4, padding_id=10).tolist()
    [[3, 4, 5, 10], [0, 10, 10, 10]]
    """
    position = begin[:, None] + np.arange(length, dtype=np.int64)
    real = position < end[:, None]
    np.minimum(position, len(items) - 1, out=position)
    return np.where(real, items[position], padding_id)
