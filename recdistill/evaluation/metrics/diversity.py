"""Intra-list diversity (Ziegler et al., WWW 2005)."""

import torch

from recdistill.evaluation.recommended_lists import RecommendedLists
from recdistill.registry import METRICS

ROWS = 4096  # lists that are compared at a time


@METRICS.register(
    "diversity", of="lists", cut_offs=(10,), says="mean distance (1 - cosine) of two items of one first {k}, by texts"
)
def diversity(lists: RecommendedLists, k: int) -> float:
    """Mean over lists of the mean of 1 - cosine over their pairs of items; NaN without vectors or pairs.

    >>> import torch
    >>> diversity(RecommendedLists(torch.tensor([[0, 1]]), torch.ones(2), torch.eye(2)), k=2)
    1.0
    """
    if lists.vectors is None:
        return float("nan")
    padded = torch.cat([lists.vectors, torch.zeros(1, lists.vectors.shape[1])])
    total, counted = 0.0, 0
    for first in lists.best[:, :k].split(ROWS):
        there = first < lists.num_items
        sizes = there.sum(dim=1).double()
        vectors = padded[first.clamp(max=lists.num_items)].double()
        # The sum of all cosines is the square of the sum's length; less those of items with themselves.
        alike = vectors.sum(dim=1).square().sum(dim=1) - vectors.square().sum(dim=(1, 2))
        pairs = sizes * (sizes - 1)
        total += float((1 - alike / pairs)[pairs > 0].sum())
        counted += int((pairs > 0).sum())
    return total / counted if counted else float("nan")
