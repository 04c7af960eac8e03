"""Items that do not compete in a row of logits, such as those of a history that are not recommended again.

They are given as `Excluded`, a pair of int64 tensors [M]: the rows, ascending, and the item ids.
"""

import torch
from torch import Tensor

Excluded = tuple[Tensor, Tensor]


def without_kept(excluded: Excluded, kept: Tensor) -> Excluded:
    """The excluded items, except those of ``kept`` [S, K], which compete in their row all the same."""
    rows, items = excluded
    other = (items.unsqueeze(1) != kept[rows]).all(dim=1)
    return rows[other], items[other]


def excluded_of_rows(excluded: Excluded | None, row: Tensor) -> Excluded | None:
    """The excluded items of the rows ``row`` [R], ascending, with rows counted from 0 to R - 1."""
    if excluded is None:
        return None
    rows, items = excluded
    if not len(row):
        return rows[:0], items[:0]
    place = torch.searchsorted(row, rows).clamp(max=len(row) - 1)
    found = row[place] == rows
    return place[found], items[found]


def logits_without(logits: Tensor, excluded: Excluded | None) -> Tensor:
    """Logits [S, V] in which the excluded items are so low that their probability is 0."""
    if excluded is None:
        return logits
    # Not minus infinity: an entropy would be NaN.
    return logits.index_put(excluded, logits.new_tensor(torch.finfo(logits.dtype).min / 2))
