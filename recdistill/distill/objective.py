"""The student's objective: base loss, robust term and ranking distillation from one vocabulary pass."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from recdistill.distill.candidate_weights import candidate_weights
from recdistill.distill.exclusion import Excluded, less_kept, of_rows, without
from recdistill.distill.losses import base_loss_of_terms, target_items
from recdistill.distill.ranking import kl_of_terms, ranking_distillation, ranking_of_terms
from recdistill.distill.vocabulary import vocabulary_terms
from recdistill.errors import InputError

RANKING_LOSSES = ("ranking", "kl")


def dllm2rec_loss(
    logits: Tensor,
    target: Tensor,
    *,
    propensity: Tensor | None,
    alpha: float,
    beta: float,
    base_loss: str,
    negative: Tensor | None = None,
    lam: float = 0.0,
    candidates: Tensor | None = None,
    distance: Tensor | None = None,
    gamma_position: float = 0.3,
    gamma_confidence: float = 0.5,
    gamma_consistency: float = 0.1,
    temperature: float = 1.0,
    distilled: Tensor | None = None,
    release_compat: bool = False,
    ranking_loss: str = "ranking",
    excluded: Excluded | None = None,
) -> dict[str, Tensor]:
    """``base + alpha mean(DRO(target)) + lam L_rank`` (DLLM2Rec, RecSys 2024; no embedding distillation).

    Samples that are not distilled carry no ranking term: L_rank is the mean over all, theirs being 0, so that
    ``lam`` weighs a sample's ranking term against its own base loss, however few of them have one. With
    ``lam`` 0 the candidates are not looked at: the result is bit for bit that without them. With ``alpha`` 0
    no robust term is computed.

    Args:
        logits: the student's [S, V].
        target: item ids [S].
        propensity: [V], of `propensity.propensity`; may be None where alpha is 0.
        alpha: weight of the robust term, of the target and of each candidate, at least 0.
        beta: the robust term's temperature, above 0.
        base_loss: ``ce`` or ``bce``; see `losses.base_loss`.
        negative: one sampled item id a sample [S], for ``bce``.
        lam: weight of L_rank, at least 0.
        candidates: the teacher's item ids [S, K], best first; needed where ``lam`` is not 0.
        distance: the teacher's distances [S, K], small is sure; needed where ``lam`` is not 0.
        gamma_position, gamma_confidence, gamma_consistency: see `candidate_weights.candidate_weights`.
        temperature: of the confidence, and of both distributions of ``kl``.
        distilled: bool [S], the samples with a ranking term, or None for all. Candidates and distances of the
            others may be anything.
        release_compat: keep two defects of the released code; see `ranking.ranking_distillation`.
        ranking_loss: ``ranking``, see `ranking.ranking_distillation`, or ``kl``, see `ranking.ranking_kl`
            (which has no robust term of candidates and no gammas).
        excluded: see `exclusion`: items that neither the softmax of ``ce`` nor the student's top K of the weights
            has; the robust term keeps them. A row's target and candidates compete all the same.

    Returns:
        Scalars: ``total``, and without gradient ``base``, ``dro`` and ``ranking``, before their weights.

    Raises:
        InputError: a weight is out of range, an input is missing, or shapes do not fit.
    """
    for name, weight in (("alpha", alpha), ("lam", lam)):
        if not weight >= 0 or not math.isfinite(weight):
            raise InputError(f"{name} is {weight}; give a number of at least 0")
    if ranking_loss not in RANKING_LOSSES:
        raise InputError(f"unknown ranking loss {ranking_loss!r}; choose one of {', '.join(RANKING_LOSSES)}")
    if alpha and propensity is None:
        raise InputError("alpha is not 0, so the robust term needs the items' propensity, [V]; give it")
    if lam:
        candidates, distance = _teacher_of_distilled(target, candidates, distance, distilled)
    if excluded is not None:
        kept = [target] if not lam or candidates is None else [target, candidates]
        excluded = less_kept(excluded, torch.column_stack(kept))
    importance = partial(
        candidate_weights,
        gamma_position=gamma_position,
        gamma_confidence=gamma_confidence,
        gamma_consistency=gamma_consistency,
        temperature=temperature,
    )
    # A candidate's robust term is a pass over the vocabulary. The second defect of the release mixes all samples.
    costly = bool(lam and alpha and ranking_loss == "ranking" and not release_compat)
    apart = costly and distilled is not None and 2 * int(distilled.sum()) <= len(distilled)
    items = target_items(target, base_loss, negative)
    columns = slice(1, 1)
    if lam and not apart:
        assert candidates is not None
        columns = slice(1, 1 + candidates.shape[1])
        items = torch.cat([items[:, :1], candidates, items[:, 1:]], dim=1)
    terms = vocabulary_terms(
        logits,
        items,
        with_logsumexp=base_loss == "ce",
        propensity=propensity if alpha else None,
        beta=beta,
        robust=columns.stop if ranking_loss == "ranking" else 1,
        excluded=excluded,
    )
    base = base_loss_of_terms(terms, base_loss)
    robust = base.new_zeros(()) if terms.dro is None else terms.dro[:, 0].mean()
    total = base + alpha * robust if alpha else base
    ranking = base.new_zeros(())
    if lam:
        assert candidates is not None
        assert distance is not None
        if apart:
            assert distilled is not None
            # Few carry the term: a second pass over their rows costs less than more columns of all.
            row = distilled.nonzero().squeeze(1)
            own, offered, far = logits[row], candidates[row], distance[row]
            left_out = of_rows(excluded, row)
            ranking = ranking_distillation(
                own,
                offered,
                importance(without(own, left_out), offered, far),
                kind=base_loss,
                negative=None if negative is None else negative[row],
                propensity=propensity,
                alpha=alpha,
                beta=beta,
                excluded=left_out,
            )
            ranking = ranking * (len(row) / len(distilled))
        elif ranking_loss == "kl":
            ranking = kl_of_terms(terms, columns, distance, temperature, distilled)
        else:
            weights = _weights_of_distilled(importance, logits, candidates, distance, distilled, excluded)
            ranking = ranking_of_terms(terms, columns, weights, base_loss, alpha, distilled, release_compat)
        total = total + lam * ranking
    return {
        "total": total,
        "base": base.detach(),
        "dro": robust.detach(),
        "ranking": ranking.detach(),
    }


def _weights_of_distilled(
    importance: Callable[..., Tensor],
    logits: Tensor,
    candidates: Tensor,
    distance: Tensor,
    distilled: Tensor | None,
    excluded: Excluded | None,
) -> Tensor:
    """The candidates' weights [S, K], 0 (and the student's best not looked for) where a sample is not distilled."""
    if distilled is None or bool(distilled.all()):
        return importance(without(logits, excluded), candidates, distance)
    row = distilled.nonzero().squeeze(1)
    own = without(logits.detach()[row], of_rows(excluded, row))
    found = importance(own, candidates[row], distance[row])
    return found.new_zeros(candidates.shape).index_copy(0, row, found)


def _teacher_of_distilled(
    target: Tensor, candidates: Tensor | None, distance: Tensor | None, distilled: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Candidates and distances [S, K], harmless where a sample is not distilled."""
    if candidates is None or distance is None:
        raise InputError("lam is not 0, so the teacher's candidates and distances are needed; give [S, K] both")
    if candidates.ndim != 2 or candidates.shape != distance.shape or len(candidates) != len(target):
        raise InputError(
            f"candidates {list(candidates.shape)} and distances {list(distance.shape)} do not fit "
            f"{len(target)} targets; give [S, K] both"
        )
    if distilled is None:
        return candidates, distance
    if distilled.shape != target.shape or distilled.dtype != torch.bool:
        raise InputError(
            f"distilled is {distilled.dtype} {list(distilled.shape)}; give one bool a sample, {list(target.shape)}"
        )
    rows = distilled.unsqueeze(1)
    # The target is a valid id; its ranking term gets the weight 0.
    return torch.where(rows, candidates, target.unsqueeze(1)), torch.where(rows, distance, 0.0)
