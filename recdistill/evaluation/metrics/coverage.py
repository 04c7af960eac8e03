"""Catalogue coverage."""

from recdistill.evaluation.recommended_lists import RecommendedLists
from recdistill.registry import METRICS


@METRICS.register("coverage", of="lists", cut_offs=(10,), says="share of the catalogue that is in any first {k}")
def coverage(lists: RecommendedLists, k: int) -> float:
    """Share of the items that stand in at least one list.

    >>> import torch
    >>> coverage(RecommendedLists(torch.tensor([[0, 1], [0, 4]]), torch.ones(4)), k=2)
    0.5
    """
    return len(lists.items(k).unique()) / lists.num_items
