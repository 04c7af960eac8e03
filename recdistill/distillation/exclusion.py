"""Items that do not compete in a row of logits, such as those of a history that are not recommended again.

They are given as `Pairs`, two int64 tensors [M]: the rows, ascending, and the item ids. An item that competes in no
row, as one without a training target, is named once, by its column: `Excluded` has both.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor]


class Excluded(NamedTuple):
    """What does not compete: pairs of row and item, and whole columns but for the pairs that compete all the same.

    Attributes:
        rows, items: int64 [M] each, rows ascending.
        columns: item ids int64 [U] that compete in no row; None for none.
        kept: pairs, rows ascending, of ``columns`` that compete in their row.
    """

    rows: Tensor
    items: Tensor
    columns: Tensor | None = None
    kept: Pairs | None = None


def excluded_with_columns(excluded: Pairs | None, columns: Tensor | None, kept: Tensor) -> Excluded | None:
    """What does not compete in the rows of a batch; None where everything does.

    Args:
        excluded: pairs of row and item; None for none.
        columns: ids int64 [U] of items that compete in no row; None for none.
        kept: ids [S, K] that compete in their row all the same.
    """
    if excluded is not None:
        excluded = without_kept(excluded, kept)
    if columns is None:
        return None if excluded is None else Excluded(*excluded)
    rows, place = (one.contiguous() for one in torch.isin(kept, columns).nonzero(as_tuple=True))
    pairs = excluded or (rows[:0], rows[:0])
    if not len(rows):
        return Excluded(*pairs, columns)
    # Each pair once: a gradient would count a repeated one more than once.
    rows, items = torch.stack([rows, kept[rows, place]]).unique(dim=1).contiguous()
    return Excluded(*pairs, columns, (rows, items))


def on_device(pairs: Pairs, device: torch.device) -> Pairs:
    """The same pairs on another device, which is not waited for."""
    rows, items = pairs
    return rows.to(device, non_blocking=True), items.to(device, non_blocking=True)


def without_kept(excluded: Pairs, kept: Tensor) -> Pairs:
    """The excluded items, except those of ``kept`` [S, K], which compete in their row all the same."""
    rows, items = excluded
    other = (items.unsqueeze(1) != kept[rows]).all(dim=1)
    return rows[other], items[other]


def excluded_of_rows(excluded: Excluded | Pairs | None, row: Tensor) -> Excluded | None:
    """The excluded items of the rows ``row`` [R], ascending, with rows counted from 0 to R - 1."""
    if excluded is None:
        return None
    rows, items, columns, kept = Excluded(*excluded)
    return Excluded(*_pairs_of_rows((rows, items), row), columns, None if kept is None else _pairs_of_rows(kept, row))


def _pairs_of_rows(pairs: Pairs, row: Tensor) -> Pairs:
    rows, items = pairs
    if not len(row):
        return rows[:0], items[:0]
    place = torch.searchsorted(row, rows).clamp(max=len(row) - 1)
    found = row[place] == rows
    return place[found], items[found]


def logits_without(logits: Tensor, excluded: Excluded | Pairs | None) -> Tensor:
    """Logits [S, V] in which the excluded items are so low that their probability is 0."""
    if excluded is None:
        return logits
    rows, items, _, _ = Excluded(*excluded)
    # Not minus infinity: an entropy would be NaN.
    low = torch.finfo(logits.dtype).min / 2
    return with_columns_at(logits, excluded, low).index_put((rows, items), logits.new_tensor(low))


def with_columns_at(values: Tensor, excluded: Excluded | Pairs | None, low: float) -> Tensor:
    """Values [S, V] with ``low`` in the excluded columns, but where an item competes all the same."""
    _, _, columns, kept = (None,) * 4 if excluded is None else Excluded(*excluded)
    if columns is None:
        return values
    lowered = values.index_fill(1, columns, low)
    return lowered if kept is None else lowered.index_put(kept, values[kept])
