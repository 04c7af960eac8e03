"""Subgroups of evaluated samples: by length of the history, and by popularity of the target."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recdistill.data.samples import Int64Array


@dataclass(frozen=True, eq=False)
class Slices:
    """A partition of N samples.

    Attributes:
        kind: 'history' or 'popularity'.
        names: one a group, with its range, e.g. 'head (168 and more)'; groups without a sample are left out.
        member: int64 [N], each sample's group, an index into ``names``.
    """

    kind: str
    names: tuple[str, ...]
    member: Int64Array


def history_slices(history_length: ArrayLike, groups: int = 3) -> Slices:
    """About equal groups of samples by the length of the whole history, short to long.

    Args:
        history_length: int64 [N], items before the target.
        groups: most groups; equal lengths stay together, so that there can be fewer.
    """
    lengths = np.asarray(history_length, dtype=np.int64)
    member = equal_groups(lengths, groups)
    names = [f"{span(lengths[member == group])} items" for group in range(member.max(initial=-1) + 1)]
    return Slices("history", tuple(names), member)


def popularity_slices(item_count: ArrayLike) -> Slices:
    """Head, middle and tail, each about a third of the samples whose target was seen in training; and cold.

    Thirds of the samples, not of the catalogue: most samples are about few items, and a group that holds hardly
    any sample can show nothing. Targets of equal count stay together.

    Args:
        item_count: int64 [N], how often each sample's target is a training target; 0 is cold.
    """
    counts = np.asarray(item_count, dtype=np.int64)
    seen = counts > 0
    third = np.full(len(counts), -1, dtype=np.int64)
    third[seen] = equal_groups(counts[seen], 3)
    found = int(third.max(initial=-1)) + 1
    titles = {1: ("head",), 2: ("tail", "head"), 3: ("tail", "middle", "head")}.get(found, ())
    names = [f"{titles[group]} ({span(counts[third == group])})" for group in reversed(range(found))]
    member = found - 1 - third
    if not seen.all():
        names.append("cold (0)")
    return Slices("popularity", tuple(names), member)


def equal_groups(values: Int64Array, groups: int) -> Int64Array:
    """Group of each value [N], ascending from 0: about equal in size, equal values together, none empty."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    shares = np.arange(1, groups) / groups
    borders = np.quantile(values, shares, method="inverted_cdf")
    return np.unique(np.searchsorted(borders, values, side="left"), return_inverse=True)[1].astype(np.int64)


def span(values: Int64Array) -> str:
    """Lowest and highest value as text; one of them where they are equal.

    >>> span(np.array([12, 30, 17])), span(np.array([4, 4]))
    ('12-30', '4')
    """
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}-{high}"
