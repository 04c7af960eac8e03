"""Importance of a teacher's candidates (DLLM2Rec, RecSys 2024, importance-aware ranking distillation)."""

import math

import torch
from torch import Tensor

from recdistill.errors import InputError

SMALL = 1e-8
# Items whose largest logit is taken first in the search for the K-th largest.
GROUP = 64


def position_weights(candidates: int) -> Tensor:
    """``exp(-rank)`` of ranks 1..K, best first, divided by their sum: float64 [K]."""
    return torch.softmax(-torch.arange(candidates, dtype=torch.float64), dim=0)


def confidence_weights(distance: Tensor, temperature: float = 1.0) -> Tensor:
    """``exp(-distance / temperature) + 1e-8``, each row divided by its sum.

    Args:
        distance: the teacher's distance to each candidate [S, K], small is sure.
        temperature: above 0; at 1 the released weights, above it flatter ones.

    Returns:
        [S, K], rows sum to one.

    Raises:
        InputError: the temperature is not above 0.
    """
    if not temperature > 0 or not math.isfinite(temperature):
        raise InputError(f"temperature is {temperature}; give a number above 0")
    # Below 0 lie scores, not distances: the common factor keeps their exponentials finite. It is 1 elsewhere.
    shift = distance.amin(dim=1, keepdim=True).clamp(max=0)
    weights = torch.exp((shift - distance) / temperature) + SMALL * torch.exp(shift / temperature)
    return weights / weights.sum(dim=1, keepdim=True)


def consistency_weights(logits: Tensor, candidates: Tensor) -> Tensor:
    """1 where a candidate is in the student's own current top K, else 0, and 1e-8 more; not normalised.

    Args:
        logits: the student's [S, V].
        candidates: item ids [S, K].

    Returns:
        [S, K] without gradient; a candidate level with the K-th largest logit counts as in.
    """
    logits = logits.detach()
    threshold = _kth_largest(logits, min(candidates.shape[1], logits.shape[1]))
    return (logits.gather(1, candidates) >= threshold).to(logits.dtype) + SMALL


def candidate_weights(
    logits: Tensor,
    candidates: Tensor,
    distance: Tensor,
    *,
    gamma_position: float,
    gamma_confidence: float,
    gamma_consistency: float,
    temperature: float = 1.0,
) -> Tensor:
    """The three weights times their gammas, each row divided by its sum.

    Args:
        logits: the student's [S, V]; read only where ``gamma_consistency`` is not 0.
        candidates: the teacher's item ids [S, K], best first.
        distance: the teacher's distances [S, K], small is sure.
        gamma_position, gamma_confidence, gamma_consistency: at least 0, one of them above.
        temperature: of the confidence.

    Returns:
        [S, K] without gradient, rows sum to one.

    Raises:
        InputError: shapes do not fit, or a gamma or the temperature is out of range.
    """
    gammas = (gamma_position, gamma_confidence, gamma_consistency)
    if not all(gamma >= 0 and math.isfinite(gamma) for gamma in gammas) or sum(gammas) == 0:
        raise InputError(f"gammas of position, confidence and consistency are {gammas}; give at least 0, not all 0")
    if candidates.ndim != 2 or distance.shape != candidates.shape:
        raise InputError(
            f"candidates {list(candidates.shape)} and distances {list(distance.shape)} do not fit; give [S, K] both"
        )
    distance = distance.detach().to(logits.dtype)
    weights = torch.zeros_like(distance)
    if gamma_position:
        weights += gamma_position * position_weights(candidates.shape[1]).to(weights)
    if gamma_confidence:
        weights += gamma_confidence * confidence_weights(distance, temperature)
    if gamma_consistency:
        weights += gamma_consistency * consistency_weights(logits, candidates)
    return weights / weights.sum(dim=1, keepdim=True)


def _kth_largest(logits: Tensor, k: int) -> Tensor:
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
