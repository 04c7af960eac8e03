"""Hit ratio; with one target a sample it is recall."""

from torch import Tensor

from recdistill.registry import METRICS


@METRICS.register("hr", cut_offs=(1, 5, 10, 20))
def hits(ranks: Tensor, k: int) -> Tensor:
    """1 where the rank is at most ``k``, else 0, float64 [N].

    >>> import torch
    >>> hits(torch.tensor([1, 10, 11]), k=10).tolist()
    [1.0, 1.0, 0.0]
    """
    return (ranks <= k).double()
