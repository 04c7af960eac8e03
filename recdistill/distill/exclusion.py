"""Items that do not compete in a row of logits, as those of a history where they are not recommended again.

Which these are is a pair of int64 [M]: rows, ascending, and item ids.
"""

import torch
from torch import Tensor

Excluded = tuple[Tensor, Tensor]


def less_kept(excluded: Excluded, kept: Tensor) -> Excluded:
    """What is excluded, less the items [S, K] that each row keeps all the same."""
    rows, items = excluded
    other = (items.unsqueeze(1) != kept[rows]).all(dim=1)
    return rows[other], items[other]


def of_rows(excluded: Excluded | None, row: Tensor) -> Excluded | None:
    """What is excluded of the rows ``row``, ascending, counted among them."""
    if excluded is None:
        return None
    rows, items = excluded
    if not len(row):
        return rows[:0], items[:0]
    place = torch.searchsorted(row, rows).clamp(max=len(row) - 1)
    found = row[place] == rows
    return place[found], items[found]


def without(logits: Tensor, excluded: Excluded | None) -> Tensor:
    """Logits [S, V] without gradient, those excluded so low that their probability is 0."""
    logits = logits.detach()
    if excluded is None:
        return logits
    # Not minus infinity, of which an entropy is NaN.
    return logits.index_put(excluded, logits.new_tensor(torch.finfo(logits.dtype).min / 2))
