"""The K-th largest logit of each row, by a search that reads the logits once."""

import math

import torch
from torch import Tensor

# Groups are a multiple of so many: their largest are then found for many groups at a time.
LANES = 32
# In a smaller catalogue a plain search takes no longer.
LEAST_ITEMS = 640


def kth_largest(logits: Tensor, k: int) -> Tensor:
    """The k-th largest logit of each row [S, 1], equal logits counted apart."""
    rows, items = logits.shape
    # So many that the groups, and the items of the k best of them, are about as few together as can be.
    groups = max(1, round(math.sqrt(k * items) / LANES)) * LANES
    size = items // groups
    if items < LEAST_ITEMS or groups < k or size < 2:
        return logits.topk(k, dim=1).values[:, -1:]
    # The k largest lie in the k groups with the largest maxima: one read of the logits, then a small search.
    grouped = logits[:, : groups * size].unflatten(1, (size, groups))
    best = grouped.amax(dim=1).topk(k, dim=1).indices  # (S, k)
    kept = grouped.gather(2, best.unsqueeze(1).expand(rows, size, k)).flatten(1)
    return torch.cat([kept, logits[:, groups * size :]], dim=1).topk(k, dim=1).values[:, -1:]
