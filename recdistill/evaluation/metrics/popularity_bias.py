"""Popularity bias: average recommendation popularity (Abdollahpouri et al., 2019), relative to that of the clicks."""

from recdistill.evaluation.recommended_lists import RecommendedLists
from recdistill.registry import METRICS


@METRICS.register(
    "popularity_bias",
    of="lists",
    cut_offs=(10,),
    says="popularity of a recommended item over that of a clicked one: above 1 pushes what is popular",
)
def popularity_bias(lists: RecommendedLists, k: int) -> float:
    """Mean training count of the recommended items, over the mean of the items at training targets; NaN of no item.

    >>> import torch
    >>> popularity_bias(RecommendedLists(torch.tensor([[0]]), torch.tensor([2, 2])), k=1)
    1.0
    """
    counts = lists.item_count.double()
    clicked = counts.square().sum() / counts.sum()
    return float(counts[lists.items(k)].mean() / clicked)
