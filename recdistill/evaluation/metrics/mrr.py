"""Mean reciprocal rank, without a cut-off."""

from torch import Tensor

from recdistill.registry import METRICS


@METRICS.register("mrr", cut_offs=())
def reciprocal_ranks(ranks: Tensor) -> Tensor:
    """1 / rank, float64 [N].

    >>> import torch
    >>> reciprocal_ranks(torch.tensor([1, 4])).tolist()
    [1.0, 0.25]
    """
    return 1 / ranks.double()
