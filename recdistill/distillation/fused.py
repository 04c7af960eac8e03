"""DLLM2Rec's loss, fast: the same as `losses.plain_loss`, all terms from one pass over the vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distillation.exclusion import Excluded, Pairs, excluded_of_rows, logits_without, on_device
from recdistill.distillation.losses import (
    SMALL,
    candidate_weights,
    kl_of_candidates,
    prepared_inputs,
    share_of_mean,
    with_negative,
)
from recdistill.distillation.settings import BaseLoss, ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.distillation.top_logits import kth_largest
from recdistill.distillation.vocabulary import VocabularyTerms, vocabulary_terms
from recdistill.errors import InputError


def fused_loss(
    settings: ObjectiveSettings,
    logits: Tensor,
    target: Tensor,
    teacher: TeacherBatch | None = None,
    *,
    negative: Tensor | None = None,
    propensity: Tensor | None = None,
    excluded: Pairs | None = None,
    columns: Tensor | None = None,
) -> dict[str, Tensor]:
    """``b (base + alpha mean(DRO(target))) + lam L_rank`` (DLLM2Rec, RecSys 2024); its formulas are in `losses`.

    L_rank is the mean over all samples, 0 for those that are not distilled, so that ``lam`` weighs a sample's ranking
    term against its own base loss, however few are distilled. With ``lam`` 0 the teacher's batch is not read: the
    result is bit for bit that without it. With ``alpha`` 0 no robust term is computed.

    Args:
        settings: weights and choices.
        logits: the student's [S, V]; float16 and bfloat16 are computed in float32.
        target: item ids [S].
        teacher: the teacher's batch; needed where ``lam`` is not 0.
        negative: one sampled item id a sample [S], where a loss is ``bce``.
        propensity: [V], of `propensity.propensity`; needed where ``alpha`` is not 0.
        excluded: items that neither the softmax of ``ce`` nor the student's top K of the importance has, see
            `exclusion`, on any device; the robust term keeps them. A row's target and candidates compete all the same.
        columns: ids int64 [U] of items that do not compete in any row, nor in the robust term, but where they are
            its target or a candidate, as items without a training target; None for none.

    Returns:
        Scalars: ``total``, and without gradient ``base``, ``dro`` and ``ranking``, before their weights.

    Raises:
        InputError: an input is missing, or shapes do not fit.
    """
    if settings.samples_negatives:
        raise InputError(f"base loss {settings.base_loss!r} is not computed from all logits; use sampled_loss")
    if excluded is not None:
        excluded = on_device(excluded, logits.device)
    teacher, absent = prepared_inputs(settings, target, teacher, propensity, excluded, columns)
    alpha = settings.alpha
    apart = teacher is not None and _is_cheaper_apart(settings, teacher)
    items, robust_items = target.unsqueeze(1), 1
    if teacher is not None and not apart:
        robust_items += teacher.candidates.shape[1] if settings.weighs_candidates else 0
        items = torch.cat([items, teacher.candidates], dim=1)
    if settings.needs_negative:
        items = with_negative(items, negative)
    terms = vocabulary_terms(
        logits,
        items,
        with_logsumexp=settings.base_loss == "ce" or (settings.needs_softmax and not apart),
        propensity=propensity if alpha else None,
        beta=settings.beta,
        robust=robust_items,
        excluded=absent,
    )
    together = None if apart else teacher
    weights = None
    if together is not None and settings.weighs_candidates:
        weights = weights_of_distilled(settings, logits, together, absent)
    base, robust, ranking = losses_of_terms(settings, terms, together, weights)
    total = of_base(settings, base, robust)
    if teacher is not None:
        if apart:
            ranking = _ranking_apart(settings, logits, teacher, negative, propensity, absent)
        total = total + settings.lam * ranking
    return {"total": total, "base": base.detach(), "dro": robust.detach(), "ranking": ranking.detach()}


def of_base(settings: ObjectiveSettings, base: Tensor, robust: Tensor) -> Tensor:
    """The weighted sum of base loss and the target's robust term."""
    total = base + settings.alpha * robust if settings.alpha else base
    return total if settings.base_weight == 1 else settings.base_weight * total


def losses_of_terms(
    settings: ObjectiveSettings, terms: VocabularyTerms, teacher: TeacherBatch | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Base, robust and ranking loss, each the mean over the samples, before their weights.

    Args:
        settings: weights and choices.
        terms: of the target, the candidates where there is a teacher, and the negative of ``bce``, in this order.
        teacher: its batch, with valid ids in all rows; None for no ranking loss.
        weights: the candidates' importance [S, K]; needed where candidates have losses of their own.
    """
    base = _base_loss(settings, terms)
    robust = base.new_zeros(()) if terms.dro is None else terms.dro[:, 0].mean()
    if teacher is None:
        return base, robust, base.new_zeros(())
    columns = slice(1, 1 + teacher.candidates.shape[1])
    if weights is None:
        candidate_logits = terms.item_logits[:, columns]
        ranking = kl_of_candidates(candidate_logits, teacher.distance, settings.temperature, teacher.distilled)
    else:
        ranking = _ranking(settings, terms, columns, weights, teacher.distilled)
    return base, robust, ranking


def consistency_weights(logits: Tensor, candidates: Tensor) -> Tensor:
    """`losses.consistency_weights` with one read of the logits."""
    logits = logits.detach()
    smallest = kth_largest(logits, min(candidates.shape[1], logits.shape[1]))
    return (logits.gather(1, candidates) >= smallest).to(logits.dtype) + SMALL


def _is_cheaper_apart(settings: ObjectiveSettings, teacher: TeacherBatch) -> bool:
    """Whether a second pass over the few distilled rows costs less than more columns of all rows."""
    # Only a candidate's robust term is a pass over the vocabulary. The release's second defect mixes all samples.
    costly = bool(settings.alpha) and settings.weighs_candidates and not settings.release_compat
    return costly and 2 * len(teacher.known_rows()) <= len(teacher.distilled)


def _base_loss(settings: ObjectiveSettings, terms: VocabularyTerms) -> Tensor:
    """`losses.base_loss` where the target is the first item of the terms and the negative of ``bce`` the last."""
    losses = _item_losses(settings, settings.base_loss, terms, slice(0, 1), shift=0)
    # The base loss of bce is a mean over both of its logits, that of a candidate is a sum.
    return (0.5 if settings.base_loss == "bce" else 1.0) * losses.mean()


def _item_losses(
    settings: ObjectiveSettings, kind: BaseLoss, terms: VocabularyTerms, columns: slice, shift: int
) -> Tensor:
    """The loss of this kind of each of the items in ``columns`` [S, C], were it the target."""
    logits = terms.item_logits[:, columns]
    match kind:
        case "ce" | "sampled":
            assert terms.logsumexp is not None
            return terms.logsumexp.unsqueeze(1) - logits
        case "bce":
            return -F.logsigmoid(logits) - F.logsigmoid(shift - terms.item_logits[:, -1:])
        case "gbce":
            assert terms.negatives is not None
            negative_loss, count = terms.negatives.split(1, dim=1)
            power = 1 - settings.gbce_calibration * (1 - terms.sampled_share)
            return (negative_loss - power * F.logsigmoid(logits)) / (count + 1)


def _ranking(
    settings: ObjectiveSettings, terms: VocabularyTerms, columns: slice, weights: Tensor, distilled: Tensor | None
) -> Tensor:
    """`losses.ranking_distillation` of terms with the candidates in ``columns`` and, for ``bce``, the negative last."""
    # Defect 1 of the release scores the negative by -log sigmoid(1 - z_n).
    losses = _item_losses(settings, settings.candidate_loss, terms, columns, shift=1 if settings.release_compat else 0)
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


def _ranking_apart(
    settings: ObjectiveSettings,
    logits: Tensor,
    teacher: TeacherBatch,
    negative: Tensor | None,
    propensity: Tensor | None,
    excluded: Excluded | None,
) -> Tensor:
    """The ranking term by a pass over the rows that are distilled alone."""
    row = teacher.distilled_rows()
    own, candidates, distance = logits[row], teacher.candidates[row], teacher.distance[row]
    excluded = excluded_of_rows(excluded, row)
    weights = _weights(settings, logits_without(own.detach(), excluded), candidates, distance)
    kind, items = settings.candidate_loss, candidates
    if kind == "bce":
        items = with_negative(candidates, None if negative is None else negative[row])
    terms = vocabulary_terms(
        own,
        items,
        with_logsumexp=kind == "ce",
        propensity=propensity,
        beta=settings.beta,
        robust=candidates.shape[1],
        excluded=excluded,
    )
    ranking = _ranking(settings, terms, slice(0, candidates.shape[1]), weights, None)
    return ranking * (len(row) / len(teacher.distilled))


def weights_of_distilled(
    settings: ObjectiveSettings, logits: Tensor, teacher: TeacherBatch, excluded: Excluded | None
) -> Tensor:
    """The candidates' weights [S, K]; 0, and the student's top K not searched, where a sample is not distilled."""
    logits, candidates, distance = logits.detach(), teacher.candidates, teacher.distance
    if len(teacher.known_rows()) == len(logits):
        return _weights(settings, logits_without(logits, excluded), candidates, distance)
    row = teacher.distilled_rows()
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
