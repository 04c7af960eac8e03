"""Propensity of items in the robust term (DROS): how often an item is a target, to the power 0.05."""

import torch
from torch import Tensor

from recdistill.errors import InputError

POWER = 0.05


def propensity(item_count: Tensor) -> Tensor:
    """``((count_i + 1) / sum_j (count_j + 1)) ** 0.05``, as DROS and DLLM2Rec (RecSys 2024) release it.

    Args:
        item_count: how often each item is a training target [V], at least 0; of any dtype.

    Returns:
        Propensities [V] in (0, 1], float64 where the counts are float64 or integers.

    Raises:
        InputError: the counts are not one row of at least one item, or one is negative.
    """
    if item_count.ndim != 1 or item_count.numel() == 0:
        raise InputError(
            f"item_count has shape {list(item_count.shape)}; give one count for each item, [V], V at least 1"
        )
    if bool((item_count < 0).any()):
        raise InputError("item_count holds a negative count; count the training targets again")
    smoothed = (item_count if item_count.dtype == torch.float32 else item_count.double()) + 1
    return (smoothed / smoothed.sum()) ** POWER
