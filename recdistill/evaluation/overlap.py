"""Top-K overlap of two rankings."""

from torch import Tensor


def top_k_overlap(first: Tensor, second: Tensor) -> float:
    """Mean share of the items of ``first`` [N, K] that are in the same row of ``second`` [N, K], in [0, 1].

    Rows hold no item twice, so that the order of the two does not matter. Raises ValueError where shapes differ or
    there is no item.

    >>> import torch
    >>> top_k_overlap(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 5], [4, 3]]))
    0.75
    """
    if first.shape != second.shape or not first.numel():
        raise ValueError(f"rankings {list(first.shape)} and {list(second.shape)} do not fit; give [N, K] both")
    return float((first.unsqueeze(2) == second.unsqueeze(1)).any(dim=2).double().mean())
