"""NDCG; with one target a sample the ideal gain is 1."""

import torch
from torch import Tensor

from recdistill.evaluation.metrics.hr import hits
from recdistill.registry import METRICS


@METRICS.register("ndcg", cut_offs=(1, 5, 10, 20))
def discounted_gains(ranks: Tensor, k: int) -> Tensor:
    """1 / log2(rank + 1) where the rank is at most ``k``, else 0, float64 [N].

    >>> import torch
    >>> discounted_gains(torch.tensor([1, 3, 11]), k=10).tolist()
    [1.0, 0.5, 0.0]
    """
    return hits(ranks, k) / torch.log2(ranks.double() + 1)
