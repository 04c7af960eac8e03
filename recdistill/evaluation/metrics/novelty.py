"""Novelty: mean self-information (Zhou et al., PNAS 2010)."""

import torch

from recdistill.evaluation.recommended_lists import RecommendedLists
from recdistill.registry import METRICS


@METRICS.register(
    "novelty", of="lists", cut_offs=(10,), says="mean bits of surprise: -log2 of an item's share of the clicks"
)
def novelty(lists: RecommendedLists, k: int) -> float:
    """Mean of -log2 of the recommended items' shares of training targets, each count plus one; NaN of no item.

    >>> import torch
    >>> novelty(RecommendedLists(torch.tensor([[0], [1]]), torch.tensor([1, 1, 1, 1])), k=1)
    2.0
    """
    counts = lists.item_count.double() + 1
    return float(-torch.log2(counts / counts.sum())[lists.items(k)].mean())
