"""The K-th largest logit of each row, by a search that reads the logits once."""

import torch
from torch import Tensor

# Items whose largest logit is taken first.
GROUP = 64


def kth_largest(logits: Tensor, k: int) -> Tensor:
    """The k-th largest logit of each row [S, 1], equal logits counted apart."""
    rows, items = logits.shape
    groups = items // GROUP
    if groups <= 2 * k:
        return logits.topk(k, dim=1).values[:, -1:]
    # The k largest lie in the k groups with the largest maxima: one read of the logits, then a small search.
    grouped = logits[:, : groups * GROUP].unflatten(1, (GROUP, groups))
    best = grouped.amax(dim=1).topk(k, dim=1).indices  # (S, k)
    kept = grouped.gather(2, best.unsqueeze(1).expand(rows, GROUP, k)).flatten(1)
    return torch.cat([kept, logits[:, groups * GROUP :]], dim=1).topk(k, dim=1).values[:, -1:]
