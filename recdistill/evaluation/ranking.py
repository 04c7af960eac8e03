"""The rank of the true next item among all items."""

import torch
from torch import Tensor

from recdistill.errors import InputError


def rank_of_target(scores: Tensor, target: Tensor, excluded: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Rank of each row's target, 1 the best: 1 + the other items, not excluded, that score at least as high.

    Ties count against the model, so that a constant scorer ranks last and gains nothing.

    Args:
        scores: [B, V].
        target: int64 [B], never excluded itself.
        excluded: coordinates int64 [M] and int64 [M] of (row, item) pairs to leave out; repeats are fine.

    Returns int64 [B], on the device of ``scores``. Raises InputError for a score that is NaN.
    """
    if torch.isnan(scores).any():
        raise InputError("the model's scores hold NaN: its training diverged; lower the learning rate")
    target = target.to(scores.device)
    beats = scores >= scores.gather(1, target[:, None])
    if excluded is not None:
        rows, items = excluded
        beats[rows.to(scores.device), items.to(scores.device)] = False
    beats.scatter_(1, target[:, None], False)
    return 1 + beats.sum(dim=1)
