"""DLLM2Rec's loss, fast: the same as `losses.plain_loss`, all terms from one pass over the vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distillation.exclusion import Excluded, excluded_of_rows, logits_without
from recdistill.distillation.losses import (
    SMALL,
    candidate_weights,
    kl_of_candidates,
    prepared_inputs,
    share_of_mean,
    target_items,
)
from recdistill.distillation.settings import BaseLoss, ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.distillation.top_logits import kth_largest
from recdistill.distillation.vocabulary import VocabularyTerms, vocabulary_terms


def fused_loss(
    settings: ObjectiveSettings,
    logits: Tensor,
    target: Tensor,
    teacher: TeacherBatch | None = None,
    *,
    negative: Tensor | None = None,
    propensity: Tensor | None = None,
    excluded: Excluded | None = None,
) -> dict[str, Tensor]:
    """``base + alpha mean(DRO(target)) + lam L_rank`` (DLLM2Rec, RecSys 2024); its formulas are in `losses`.

    L_rank is the mean over all samples, 0 for those that are not distilled, so that ``lam`` weighs a sample's ranking
    term against its own base loss, however few are distilled. With ``lam`` 0 the teacher's batch is not read: the
    result is bit for bit that without it. With ``alpha`` 0 no robust term is computed.

    Args:
        settings: weights and choices.
        logits: the student's [S, V]; float16 and bfloat16 are computed in float32.
        target: item ids [S].
        teacher: the teacher's batch; needed where ``lam`` is not 0.
        negative: one sampled item id a sample [S], for ``base_loss=bce``.
        propensity: [V], of `propensity.propensity`; needed where ``alpha`` is not 0.
        excluded: items that neither the softmax of ``ce`` nor the student's top K of the importance has, see
            `exclusion`; the robust term keeps them. A row's target and candidates compete all the same.

    Returns:
        Scalars: ``total``, and without gradient ``base``, ``dro`` and ``ranking``, before their weights.

    Raises:
        InputError: an input is missing, or shapes do not fit.
    """
    teacher, excluded = prepared_inputs(settings, target, teacher, propensity, excluded)
    kind, alpha = settings.base_loss, settings.alpha
    apart = teacher is not None and _is_cheaper_apart(settings, teacher.distilled)
    items, columns = target_items(target, kind, negative), slice(1, 1)
    if teacher is not None and not apart:
        columns = slice(1, 1 + teacher.candidates.shape[1])
        items = torch.cat([items[:, :1], teacher.candidates, items[:, 1:]], dim=1)
    terms = vocabulary_terms(
        logits,
        items,
        with_logsumexp=kind == "ce",
        propensity=propensity if alpha else None,
        beta=settings.beta,
        robust=columns.stop if settings.ranking_loss == "ranking" else 1,
        excluded=excluded,
    )
    base = _base_loss(terms, kind)
    robust = base.new_zeros(()) if terms.dro is None else terms.dro[:, 0].mean()
    total = base + alpha * robust if alpha else base
    ranking = base.new_zeros(())
    if teacher is not None:
        if apart:
            ranking = _ranking_apart(settings, logits, teacher, negative, propensity, excluded)
        else:
            ranking = _ranking_together(settings, logits, terms, columns, teacher, excluded)
        total = total + settings.lam * ranking
    return {"total": total, "base": base.detach(), "dro": robust.detach(), "ranking": ranking.detach()}


def consistency_weights(logits: Tensor, candidates: Tensor) -> Tensor:
    """`losses.consistency_weights` with one read of the logits."""
    logits = logits.detach()
    smallest = kth_largest(logits, min(candidates.shape[1], logits.shape[1]))
    return (logits.gather(1, candidates) >= smallest).to(logits.dtype) + SMALL


def _is_cheaper_apart(settings: ObjectiveSettings, distilled: Tensor) -> bool:
    """Whether a second pass over the few distilled rows costs less than more columns of all rows."""
    # Only a candidate's robust term is a pass over the vocabulary. The release's second defect mixes all samples.
    costly = bool(settings.alpha) and settings.ranking_loss == "ranking" and not settings.release_compat
    return costly and 2 * int(distilled.sum()) <= len(distilled)


def _base_loss(terms: VocabularyTerms, kind: BaseLoss) -> Tensor:
    """`losses.base_loss` where the target is the first item of the terms and the negative the last."""
    logits = terms.item_logits
    if kind == "ce":
        assert terms.logsumexp is not None
        return (terms.logsumexp - logits[:, 0]).mean()
    return 0.5 * (F.softplus(-logits[:, 0]) + F.softplus(logits[:, -1])).mean()


def _ranking(
    settings: ObjectiveSettings, terms: VocabularyTerms, columns: slice, weights: Tensor, distilled: Tensor | None
) -> Tensor:
    """`losses.ranking_distillation` of terms with the candidates in ``columns`` and, for ``bce``, the negative last."""
    candidate_logits = terms.item_logits[:, columns]
    if settings.base_loss == "ce":
        assert terms.logsumexp is not None
        losses = terms.logsumexp.unsqueeze(1) - candidate_logits
    else:
        negative_logits = terms.item_logits[:, -1:]
        # Defect 1 of the release scores the negative by -log sigmoid(1 - z_n).
        losses = F.softplus(-candidate_logits) + F.softplus(negative_logits - (1 if settings.release_compat else 0))
    share = share_of_mean(losses, distilled)
    weights = weights.detach().to(losses)
    if not settings.alpha:
        return (share * (weights * losses).sum(dim=1)).sum()
    assert terms.dro is not None
    robust = terms.dro[:, columns]
    if not settings.release_compat:
        return (share * (weights * (losses + settings.alpha * robust)).sum(dim=1)).sum()
    # Defect 2 of the release: weights [S, 1] times robust terms [S] makes [S, S], the product of the means.
    crossed = (share @ weights) * (share @ robust)
    return (share * (weights * losses).sum(dim=1)).sum() + settings.alpha * crossed.sum()


def _ranking_together(
    settings: ObjectiveSettings,
    logits: Tensor,
    terms: VocabularyTerms,
    columns: slice,
    teacher: TeacherBatch,
    excluded: Excluded | None,
) -> Tensor:
    """The ranking term of terms that hold the candidates of all rows in ``columns``."""
    if settings.ranking_loss == "kl":
        candidate_logits = terms.item_logits[:, columns]
        return kl_of_candidates(candidate_logits, teacher.distance, settings.temperature, teacher.distilled)
    weights = _weights_of_distilled(settings, logits, teacher, excluded)
    return _ranking(settings, terms, columns, weights, teacher.distilled)


def _ranking_apart(
    settings: ObjectiveSettings,
    logits: Tensor,
    teacher: TeacherBatch,
    negative: Tensor | None,
    propensity: Tensor | None,
    excluded: Excluded | None,
) -> Tensor:
    """The ranking term by a pass over the rows that are distilled alone."""
    row = teacher.distilled.nonzero().squeeze(1)
    own, candidates, distance = logits[row], teacher.candidates[row], teacher.distance[row]
    excluded = excluded_of_rows(excluded, row)
    weights = _weights(settings, logits_without(own.detach(), excluded), candidates, distance)
    negatives = target_items(candidates[:, 0], settings.base_loss, None if negative is None else negative[row])[:, 1:]
    terms = vocabulary_terms(
        own,
        torch.cat([candidates, negatives], dim=1),
        with_logsumexp=settings.base_loss == "ce",
        propensity=propensity,
        beta=settings.beta,
        robust=candidates.shape[1],
        excluded=excluded,
    )
    ranking = _ranking(settings, terms, slice(0, candidates.shape[1]), weights, None)
    return ranking * (len(row) / len(teacher.distilled))


def _weights_of_distilled(
    settings: ObjectiveSettings, logits: Tensor, teacher: TeacherBatch, excluded: Excluded | None
) -> Tensor:
    """The candidates' weights [S, K]; 0, and the student's top K not searched, where a sample is not distilled."""
    logits, candidates, distance = logits.detach(), teacher.candidates, teacher.distance
    if bool(teacher.distilled.all()):
        return _weights(settings, logits_without(logits, excluded), candidates, distance)
    row = teacher.distilled.nonzero().squeeze(1)
    own = logits_without(logits[row], excluded_of_rows(excluded, row))
    found = _weights(settings, own, candidates[row], distance[row])
    return found.new_zeros(candidates.shape).index_copy(0, row, found)


def _weights(settings: ObjectiveSettings, logits: Tensor, candidates: Tensor, distance: Tensor) -> Tensor:
    """`losses.candidate_weights` of the settings [S, K]."""
    return candidate_weights(
        logits,
        candidates,
        distance,
        gamma_position=settings.gamma_position,
        gamma_confidence=settings.gamma_confidence,
        gamma_consistency=settings.gamma_consistency,
        temperature=settings.temperature,
        consistency=consistency_weights,
    )
