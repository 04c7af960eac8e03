"""Rows read from a table whose gradient is sparse: it names each row once, and that it does is known without a look."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: The attribute of a table that holds the ids of its rows that were last read.
LAST_READ = "ids_last_read"


def read_rows(table: Tensor, ids: Tensor, learning: int | None = None) -> Tensor:
    """Rows ``table[ids]`` [U, ...] of a table [V, ...], which gets a sparse gradient.

    Args:
        table: of which only few rows are read.
        ids: int64 [U], ascending, each once.
        learning: the first so many get a gradient; None for all.
    """
    learning = len(ids) if learning is None else learning
    # Held, so that no other tensor can lie where it does; see `coalesced_gradient`.
    vars(table)[LAST_READ] = ids[:learning]
    rows: Tensor = _ReadRows.apply(table, ids, learning)
    return rows


def coalesced_gradient(table: Tensor) -> Tensor:
    """The sparse gradient of a table with each row once, as `torch.Tensor.coalesce` gives it.

    PyTorch counts rows to find that, for which a GPU has to be waited; rows that `read_rows` read in one place alone
    are known to be so.
    """
    gradient = table.grad
    assert gradient is not None
    ids = vars(table).get(LAST_READ)
    if ids is None or gradient.is_coalesced():
        return gradient.coalesce()
    rows = gradient._indices()
    if rows.shape != (1, len(ids)) or rows.data_ptr() != ids.data_ptr():
        return gradient.coalesce()
    return torch.sparse_coo_tensor(rows, gradient._values(), gradient.shape, is_coalesced=True, check_invariants=False)


class _ReadRows(torch.autograd.Function):
    """Rows of a table [V, ...] by ids [U], of which the first ones learn."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, learning: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.learning, ctx.shape = learning, table.shape
        return table.index_select(0, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        rows, values = ids[: ctx.learning].unsqueeze(0), gradient[: ctx.learning].contiguous()
        return torch.sparse_coo_tensor(rows, values, ctx.shape, check_invariants=False), None, None
