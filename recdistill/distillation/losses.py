"""DLLM2Rec's loss (Cui et al., RecSys 2024, arXiv 2405.00338): L = b (base + alpha DRO) + lam sum_k mean_s w_sk L_sk.

The specification, written to be read; training computes the same by `fused`, which tests compare with `plain_loss`.

Notation: S samples, V items, K candidates; z the student's logits [S, V], y the target [S], n one sampled negative [S],
c the teacher's candidates [S, K], best first, w their importance [S, K], p the items' propensity [V].

- base loss, `base_loss`: ``-log softmax(z)_y``, or ``(-log sigmoid(z_y) - log(1 - sigmoid(z_n))) / 2``
- robust term, `dro`: ``log( sum_i exp(p_i z_i^2 / beta) - exp(p_t z_t^2 / beta) + exp(p_t (z_t - 1)^2 / beta) )``
- importance, `candidate_weights`: ``w = gamma_p position + gamma_c confidence + gamma_s consistency``, rows sum to one
- ranking distillation, `ranking_distillation`: ``L_sk = loss(c_sk) + alpha DRO(c_sk)``, the loss that of the base, or
  ``ce`` or ``bce`` beside another base loss
- listwise alternative, `ranking_kl`: ``T^2 KL(softmax(-distance / T) || softmax(z_c / T))``, computed in float64

The paper's other half, collaborative embedding distillation, is in `recdistill.students.item_embedding`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distillation.exclusion import Excluded, Pairs, excluded_with_columns, logits_without, with_columns_at
from recdistill.distillation.settings import BaseLoss, ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError

SMALL = 1e-8


def plain_loss(
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
    """The whole objective from the formulas below; arguments, result and errors as of `fused.fused_loss`."""
    teacher, absent = prepared_inputs(settings, target, teacher, propensity, excluded, columns)
    kind, alpha, beta = settings.base_loss, settings.alpha, settings.beta
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    base = base_loss(logits, target, kind, negative, absent)
    robust = base.new_zeros(())
    if propensity is not None and alpha:
        robust = dro(logits, propensity, target, beta, absent).mean()
    ranking = base.new_zeros(())
    if teacher is not None:
        candidates, distance, distilled = teacher.candidates, teacher.distance, teacher.distilled
        if settings.ranking_loss == "kl":
            ranking = ranking_kl(logits, candidates, distance, settings.temperature, distilled)
        else:
            importance = candidate_weights(
                logits_without(logits, absent),
                candidates,
                distance,
                gamma_position=settings.gamma_position,
                gamma_confidence=settings.gamma_confidence,
                gamma_consistency=settings.gamma_consistency,
                temperature=settings.temperature,
            )
            ranking = ranking_distillation(
                logits,
                candidates,
                importance,
                kind=settings.candidate_loss,
                negative=negative,
                propensity=propensity,
                alpha=alpha,
                beta=beta,
                release_compat=settings.release_compat,
                distilled=distilled,
                excluded=absent,
            )
    total = settings.base_weight * (base + alpha * robust) + settings.lam * ranking
    return {"total": total, "base": base.detach(), "dro": robust.detach(), "ranking": ranking.detach()}


def base_loss(
    logits: Tensor,
    target: Tensor,
    kind: BaseLoss = "ce",
    negative: Tensor | None = None,
    excluded: Excluded | Pairs | None = None,
) -> Tensor:
    """Next-item loss, a scalar: the mean over samples.

    Args:
        logits: [S, V].
        target: item ids [S].
        kind: ``ce``, cross-entropy over all items; or ``bce``, the mean over the 2S logits of
            ``-log sigmoid(z_y)`` and ``-log(1 - sigmoid(z_n))`` (DLLM2Rec's base loss).
        negative: one sampled item id a sample [S], for ``bce``.
        excluded: items that the softmax of ``ce`` leaves out; no target may be among them.

    Raises:
        InputError: ``bce`` without negatives, or shapes that do not fit.
    """
    items = target_items(target, kind, negative)
    if kind == "ce":
        return F.cross_entropy(logits_without(logits, excluded), target)
    positive_logit, negative_logit = logits.gather(1, items).unbind(dim=1)
    return (-F.logsigmoid(positive_logit) - F.logsigmoid(-negative_logit)).mean() / 2


def dro(
    logits: Tensor, propensity: Tensor, items: Tensor, beta: float = 1.0, excluded: Excluded | Pairs | None = None
) -> Tensor:
    """Robust term of items (DROS, the student that DLLM2Rec builds on), finite for any finite logits.

    ``log( sum_i exp(p_i z_i^2 / beta) - exp(p_t z_t^2 / beta) + exp(p_t (z_t - 1)^2 / beta) )``: the log-sum-exp of
    ``p_i z_i^2 / beta`` with the exponent of item t replaced.

    Args:
        logits: [S, V].
        propensity: [V], of `propensity.propensity`.
        items: item ids t, [S] or [S, K].
        beta: above 0.
        excluded: its columns leave the sum; pairs of row and item, as those of a history, do not.

    Returns:
        One term an item, the shape of ``items``.
    """
    if items.ndim == 2:
        return torch.stack([dro(logits, propensity, column, beta, excluded) for column in items.unbind(dim=1)], dim=1)
    item = items.unsqueeze(1)
    sharpness = (propensity.detach() / beta).to(logits)
    moved = sharpness[item] * (logits.gather(1, item) - 1).square()
    exponents = with_columns_at(sharpness * logits.square(), excluded, -math.inf)
    return exponents.scatter(1, item, moved).logsumexp(dim=1)


def position_weights(candidates: int) -> Tensor:
    """``exp(-rank)`` of ranks 1..K, best first, divided by their sum: float64 [K]."""
    return torch.softmax(-torch.arange(candidates, dtype=torch.float64), dim=0)


def confidence_weights(distance: Tensor, temperature: float = 1.0) -> Tensor:
    """``exp(-distance / temperature) + 1e-8``, each row divided by its sum; below 1 the weights of 1 to ``1 / T``.

    A floor that stays while the exponentials shrink would make the weights of a small temperature all alike, where
    they shall be the surest candidate's alone. So below 1 the whole sum is tempered, ``(exp(-distance) + 1e-8)^(1/T)``.

    Args:
        distance: the teacher's distance to each candidate [S, K]; a small distance means a sure teacher.
        temperature: T, above 0; at 1 the released weights, above it flatter ones, below it sharper ones.

    Returns:
        [S, K], rows sum to one.

    Raises:
        InputError: the temperature is not above 0.
    """
    check_temperature(temperature)
    softening = max(temperature, 1.0)
    # Scores instead of distances may be negative: the common factor keeps their exponentials finite; else it is 1.
    shift = distance.amin(dim=1, keepdim=True).clamp(max=0)
    weights = torch.exp((shift - distance) / softening) + SMALL * torch.exp(shift / softening)
    if temperature < 1:
        # Of the largest, which is 1 to any power: no row becomes 0.
        weights = (weights / weights.amax(dim=1, keepdim=True)).pow(1 / temperature)
    return weights / weights.sum(dim=1, keepdim=True)


def consistency_weights(logits: Tensor, candidates: Tensor) -> Tensor:
    """1 where a candidate is in the student's own current top K, else 0, and 1e-8 more; not normalised.

    Args:
        logits: the student's [S, V].
        candidates: item ids [S, K].

    Returns:
        [S, K] without gradient; a candidate whose logit equals the K-th largest counts as in the top K.
    """
    logits = logits.detach()
    smallest = logits.topk(min(candidates.shape[1], logits.shape[1]), dim=1).values[:, -1:]
    return (logits.gather(1, candidates) >= smallest).to(logits.dtype) + SMALL


def candidate_weights(
    logits: Tensor,
    candidates: Tensor,
    distance: Tensor,
    *,
    gamma_position: float,
    gamma_confidence: float,
    gamma_consistency: float,
    temperature: float = 1.0,
    consistency: Callable[[Tensor, Tensor], Tensor] = consistency_weights,
) -> Tensor:
    """Importance of a teacher's candidates: the three weights times their gammas, each row divided by its sum.

    Args:
        logits: the student's [S, V]; read only where ``gamma_consistency`` is not 0.
        candidates: the teacher's item ids [S, K], best first.
        distance: the teacher's distances [S, K]; a small distance means a sure teacher.
        gamma_position, gamma_confidence, gamma_consistency: at least 0, not all 0.
        temperature: of the confidence.
        consistency: computes `consistency_weights`; `fused` gives a faster function of the same result.

    Returns:
        [S, K] without gradient, rows sum to one.

    Raises:
        InputError: shapes do not fit, or the temperature is out of range.
    """
    _check_candidates(candidates, distance, "distances")
    distance = distance.detach().to(logits.dtype)
    weights = torch.zeros_like(distance)
    if gamma_position:
        weights += gamma_position * position_weights(candidates.shape[1]).to(weights, non_blocking=True)
    if gamma_confidence:
        weights += gamma_confidence * confidence_weights(distance, temperature)
    if gamma_consistency:
        weights += gamma_consistency * consistency(logits, candidates)
    return weights / weights.sum(dim=1, keepdim=True)


def ranking_distillation(
    logits: Tensor,
    candidates: Tensor,
    weights: Tensor,
    *,
    kind: BaseLoss = "ce",
    negative: Tensor | None = None,
    propensity: Tensor | None = None,
    alpha: float = 0.0,
    beta: float = 1.0,
    release_compat: bool = False,
    distilled: Tensor | None = None,
    excluded: Excluded | Pairs | None = None,
) -> Tensor:
    """Importance-aware ranking distillation, a scalar: ``sum_k mean_s w_sk (loss(c_sk) + alpha DRO(c_sk))``.

    With ``kind`` ``bce`` the loss of a candidate is, as released, ``-log sigmoid(z_c) - log(1 - sigmoid(z_n))``: a
    sum, while the base loss is a mean over both. With ``ce`` it is the candidate's ``-log softmax(z)_c``.

    Args:
        logits: the student's [S, V].
        candidates: the teacher's item ids [S, K].
        weights: their importance [S, K], of `candidate_weights`.
        kind: ``ce`` or ``bce``.
        negative: one sampled item id a sample [S], for ``bce``.
        propensity: [V], needed where alpha is not 0.
        alpha: weight of the robust term.
        beta: of the robust term, above 0.
        release_compat: keep two defects of the released code: ``log sigmoid(1 - z_n)`` where ``bce`` needs
            ``log(1 - sigmoid(z_n))``, and robust terms that meet the weights of all samples,
            ``mean_s(w_sk) mean_s(DRO(c_sk))``.
        distilled: bool [S], the samples that count, or None for all; the mean is over all S, the others being 0.
        excluded: items that the softmax of ``ce`` leaves out, and columns that the robust term does; no candidate
            may be among them.

    Raises:
        InputError: a missing negative or propensity, or shapes that do not fit.
    """
    _check_candidates(candidates, weights, "weights")
    negatives = target_items(candidates[:, 0], kind, negative)[:, 1:]
    if alpha and propensity is None:
        raise InputError("alpha is not 0, so the robust term needs the items' propensity, [V]; give it")
    counted = logits.new_ones(len(logits)) if distilled is None else distilled.to(logits)
    weights = weights.detach().to(logits) * counted.unsqueeze(1)
    total = logits.new_zeros(())
    for candidate, weight in zip(candidates.unbind(dim=1), weights.unbind(dim=1), strict=True):
        if kind == "ce":
            losses = F.cross_entropy(logits_without(logits, excluded), candidate, reduction="none")
        else:
            candidate_logit, negative_logit = (logits.gather(1, one) for one in (candidate.unsqueeze(1), negatives))
            shift = 1 if release_compat else 0
            losses = (-F.logsigmoid(candidate_logit) - F.logsigmoid(shift - negative_logit)).squeeze(1)
        total = total + (weight * losses).mean()
        if alpha and propensity is not None:
            robust = dro(logits, propensity, candidate, beta, excluded)
            # The release multiplies weights [S, 1] by robust terms [S]: the mean of [S, S] is the product of the means.
            crossed = weight.mean() * (counted * robust).mean()
            total = total + alpha * (crossed if release_compat else (weight * robust).mean())
    return total


def ranking_kl(
    logits: Tensor,
    candidates: Tensor,
    distance: Tensor,
    temperature: float = 1.0,
    distilled: Tensor | None = None,
) -> Tensor:
    """Listwise alternative: ``T^2 KL(teacher || student)`` over the K candidates, the mean over samples.

    The teacher's distribution is ``softmax(-distance / T)``, the student's ``softmax(z_c / T)``, over the K
    candidates only (Hinton et al., 2015, whose factor T^2 keeps the gradient's size).

    Args:
        logits: the student's [S, V].
        candidates: the teacher's item ids [S, K], without repeats.
        distance: the teacher's distances [S, K]; a small distance means a sure teacher.
        temperature: T, above 0.
        distilled: as in `ranking_distillation`.

    Raises:
        InputError: shapes do not fit, or the temperature is not above 0.
    """
    _check_candidates(candidates, distance, "distances")
    return kl_of_candidates(logits.gather(1, candidates), distance, temperature, distilled)


def kl_of_candidates(
    candidate_logits: Tensor, distance: Tensor, temperature: float, distilled: Tensor | None
) -> Tensor:
    """`ranking_kl` from the logits of the candidates [S, K]."""
    divergence = candidate_divergence(candidate_logits, distance, temperature)
    total = temperature**2 * (share_of_mean(divergence, distilled) * divergence).sum()
    return total.to(candidate_logits.dtype)


def candidate_divergence(candidate_scores: Tensor, distance: Tensor, temperature: float) -> Tensor:
    """``KL(softmax(-distance / T) || softmax(scores / T))`` over the K candidates, float64 [S].

    Both distributions are nearly uniform at a large T, and the divergence is a difference of the size of ``1 / T^2``:
    in float32 it would be rounding alone.

    Args:
        candidate_scores: the student's logits or log-probabilities [S, K]; their gradient has their own dtype.
        distance: the teacher's [S, K].
        temperature: T, above 0.

    Raises:
        InputError: the temperature is not above 0.
    """
    check_temperature(temperature)
    student = torch.log_softmax(candidate_scores.double() / temperature, dim=1)
    teacher = torch.log_softmax(-distance.detach().double() / temperature, dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1)


def share_of_mean(like: Tensor, distilled: Tensor | None) -> Tensor:
    """Each sample's share of the mean over all [S]: 1 / S, and 0 where it is not distilled."""
    share = like.new_full((len(like),), 1 / max(1, len(like)))
    return share if distilled is None else share * distilled


def target_items(target: Tensor, kind: BaseLoss, negative: Tensor | None) -> Tensor:
    """The items whose logits a base loss needs: [S, 1], or with the negative [S, 2]. Raises InputError without it."""
    if kind == "ce":
        return target.unsqueeze(1)
    return with_negative(target.unsqueeze(1), negative)


def with_negative(items: Tensor, negative: Tensor | None) -> Tensor:
    """Items [S, M] with the sampled negative of each sample behind, [S, M + 1]. Raises InputError without it."""
    if negative is None or negative.shape != items.shape[:1]:
        found = "none" if negative is None else list(negative.shape)
        raise InputError(
            f"the loss bce, of base_loss or ranking_loss, needs a sampled negative a sample, {list(items.shape[:1])}; "
            f"got {found}"
        )
    return torch.cat([items, negative.unsqueeze(1)], dim=1)


def prepared_inputs(
    settings: ObjectiveSettings,
    target: Tensor,
    teacher: TeacherBatch | None,
    propensity: Tensor | None,
    excluded: Pairs | None,
    columns: Tensor | None = None,
) -> tuple[TeacherBatch | None, Excluded | None]:
    """The teacher's batch with valid ids in all rows, None where ``lam`` is 0; and what does not compete.

    A row's target and candidates compete, excluded or not. Raises InputError where an input is missing.
    """
    if settings.alpha and propensity is None:
        raise InputError("alpha is not 0, so the robust term needs the items' propensity, [V]; give it")
    if settings.lam and teacher is None:
        raise InputError("lam is not 0, so the teacher's candidates and distances are needed; give its batch")
    teacher = teacher.filled(target) if teacher is not None and settings.lam else None
    kept = [target] if teacher is None else [target, teacher.candidates]
    return teacher, excluded_with_columns(excluded, columns, torch.column_stack(kept))


def check_temperature(temperature: float) -> None:
    """Raise InputError unless the temperature is above 0."""
    if not temperature > 0 or not math.isfinite(temperature):
        raise InputError(f"temperature is {temperature}; give a number above 0")


def _check_candidates(candidates: Tensor, other: Tensor, name: str) -> None:
    if candidates.ndim != 2 or candidates.shape != other.shape:
        raise InputError(
            f"candidates {list(candidates.shape)} and {name} {list(other.shape)} do not fit; give [S, K] both"
        )
