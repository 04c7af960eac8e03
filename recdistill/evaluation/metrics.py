"""HR, NDCG and MRR from ranks; with one target a sample, NDCG's ideal gain is 1 and HR is recall."""

from collections.abc import Sequence

import torch
from torch import Tensor

KS = (1, 5, 10, 20)


def hits(ranks: Tensor, k: int) -> Tensor:
    """1 where the rank is at most ``k``, else 0, float64 [N]."""
    return (ranks <= k).double()


def discounted_gains(ranks: Tensor, k: int) -> Tensor:
    """1 / log2(rank + 1) where the rank is at most ``k``, else 0, float64 [N]."""
    return hits(ranks, k) / torch.log2(ranks.double() + 1)


def reciprocal_ranks(ranks: Tensor) -> Tensor:
    """1 / rank, without a cut-off, float64 [N]."""
    return 1 / ranks.double()


def hr(ranks: Tensor, k: int) -> float:
    """Hit ratio at ``k`` over ``ranks`` [N], 1 the best."""
    return hits(ranks, k).mean().item()


def ndcg(ranks: Tensor, k: int) -> float:
    """Normalised discounted cumulative gain at ``k`` over ``ranks`` [N], 1 the best."""
    return discounted_gains(ranks, k).mean().item()


def mrr(ranks: Tensor) -> float:
    """Mean reciprocal rank over ``ranks`` [N], 1 the best."""
    return reciprocal_ranks(ranks).mean().item()


def metrics_from_ranks(ranks: Tensor, ks: Sequence[int] = KS) -> dict[str, float]:
    """``{'hr_at_1': ..., 'ndcg_at_1': ..., ..., 'mrr': ...}``, each in [0, 1].

    Args:
        ranks: int64 [N], N >= 1, each at least 1.
        ks: cut-offs.

    Raises ValueError where there is no rank, or one below 1.
    """
    if not len(ranks):
        raise ValueError("no ranks: a mean over no sample is undefined")
    if ranks.min() < 1:
        raise ValueError(f"rank {ranks.min().item()}: ranks start at 1")
    cut_off = {f"{name}_at_{k}": metric(ranks, k) for k in ks for name, metric in (("hr", hr), ("ndcg", ndcg))}
    return cut_off | {"mrr": mrr(ranks)}
