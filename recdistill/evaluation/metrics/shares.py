"""Shares of head, tail and new items among what is recommended."""

import torch
from torch import Tensor

from recdistill.evaluation.recommended_lists import RecommendedLists
from recdistill.registry import METRICS


@METRICS.register(
    "head_share", of="lists", cut_offs=(10,), says="share of places with an item of the few that draw a third of clicks"
)
def head_share(lists: RecommendedLists, k: int) -> float:
    """Share of recommended places whose item is of the most popular third, by training targets; NaN of no item.

    >>> import torch
    >>> head_share(RecommendedLists(torch.tensor([[0, 1]]), torch.tensor([8, 1, 1])), k=2)
    0.5
    """
    return share_of(lists, k, popularity_group(lists.item_count) == 2)


@METRICS.register(
    "tail_share",
    of="lists",
    cut_offs=(10,),
    says="share of places with one of the many items of the last third of clicks",
)
def tail_share(lists: RecommendedLists, k: int) -> float:
    """Share of recommended places whose item is of the least popular third, by training targets; NaN of no item.

    >>> import torch
    >>> tail_share(RecommendedLists(torch.tensor([[0, 1]]), torch.tensor([8, 1, 1])), k=2)
    0.5
    """
    return share_of(lists, k, popularity_group(lists.item_count) == 0)


@METRICS.register(
    "new_share", of="lists", cut_offs=(10,), says="share of places with an item that training has no click on"
)
def new_share(lists: RecommendedLists, k: int) -> float:
    """Share of recommended places whose item is no training target; NaN of no item.

    >>> import torch
    >>> new_share(RecommendedLists(torch.tensor([[0, 1]]), torch.tensor([8, 0])), k=2)
    0.5
    """
    return share_of(lists, k, lists.item_count == 0)


def share_of(lists: RecommendedLists, k: int, chosen: Tensor) -> float:
    """Share of the recommended places whose item is among ``chosen``, bool [V]."""
    return float(chosen[lists.items(k)].double().mean())


def popularity_group(item_count: Tensor) -> Tensor:
    """Of each item, int64 [V]: 2 of the head, 1 of the middle, 0 of the tail, -1 where it is no training target.

    Items in order of their counts: the head is the fewest that hold a third of the training targets, the tail what is
    left when the more popular ones hold two thirds. Items of equal count stand in the order of their numbers.
    """
    order = item_count.argsort(descending=True, stable=True)
    counts = item_count[order].long()
    # Of the targets, three times those that more popular items hold: whole numbers, with no border between two.
    before, total = 3 * (counts.cumsum(0) - counts), counts.sum()
    group = torch.where(before < total, 2, torch.where(before < 2 * total, 1, 0))
    found = torch.full_like(item_count, -1, dtype=torch.int64)
    found[order] = group
    found[item_count == 0] = -1
    return found
