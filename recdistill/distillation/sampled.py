"""DLLM2Rec's loss from some items as negatives, for catalogues too large to score.

What `losses` sums over the catalogue is estimated: of target and candidates exactly, of the other items by those drawn,
each weighted by one over how often it was to be expected (log-Q correction; Bengio & Senecal, 2008; Yi et al., RecSys
2019, who correct targets too: here a target is always in its sum, so that it counts once and the sum has no bias). Time
and memory of a step do not depend on the catalogue's size.

- ``sampled``: ``-log( exp(z_y) / Z )``, Z the estimate of the softmax's denominator; all samples of a batch share the
  items that are drawn
- ``gbce``: ``( -b log sigmoid(z_y) - sum_n log(1 - sigmoid(z_n)) ) / (N + 1)`` over N uniform negatives of V items,
  with ``b = 1 - t (1 - N / V)``, which takes back the overconfidence that few negatives bring (gSASRec; Petrov &
  Macdonald, RecSys 2023); t is the calibration. Each sample has negatives of its own: shared ones would be pushed down
  by all samples of a batch at once and the others by none, from which it hardly learns
- the robust term's sum over items, in both, is estimated as Z is
- a candidate is in the student's top K where an estimate of its rank is
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distillation.exclusion import Pairs, on_device
from recdistill.distillation.fused import losses_of_terms, of_base
from recdistill.distillation.losses import SMALL, candidate_weights, prepared_inputs
from recdistill.distillation.negatives import Negatives
from recdistill.distillation.output_layer import FEW, OutputLayer
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.distillation.vocabulary import VocabularyTerms, check_beta, robust_terms
from recdistill.errors import InputError


def sampled_loss(
    settings: ObjectiveSettings,
    states: Tensor,
    output: OutputLayer,
    target: Tensor,
    teacher: TeacherBatch | None = None,
    *,
    negatives: Negatives,
    propensity: Tensor | None = None,
    excluded: Pairs | None = None,
    columns: Tensor | None = None,
) -> dict[str, Tensor]:
    """The objective with a ``base_loss`` of `settings.SAMPLED`.

    Args:
        settings: weights and choices.
        states: the student's [S, D]; float16 and bfloat16 are computed in float32.
        output: the layer that scores items, or the rows of it that are needed.
        target: item ids [S].
        teacher: the teacher's batch; needed where ``lam`` is not 0.
        negatives: the items that were drawn, shared or each sample's own.
        propensity: [V], of `propensity.propensity`; needed where ``alpha`` is not 0.
        excluded: pairs of row and item that are no negatives, save a row's target and candidates, on any device.
        columns: ids of items that, drawn, are negatives of the base loss alone, save as a row's target or candidate.

    Returns:
        As `fused.fused_loss`.

    Raises:
        InputError: the base loss is another, an input is missing, or shapes do not fit.
    """
    if not settings.samples_negatives:
        raise InputError(f"base loss {settings.base_loss!r} has no drawn negatives; compute it by blockwise_loss")
    teacher, _ = prepared_inputs(settings, target, teacher, propensity, None)
    items = target.unsqueeze(1)
    if teacher is not None:
        items = torch.cat([items, teacher.candidates], dim=1)
    if states.dtype in (torch.float16, torch.bfloat16):
        states, output = states.float(), output.float()
    item_logits = output.item_logits(states, items)
    if excluded is not None:
        excluded = on_device(excluded, states.device)
    if negatives.are_shared:
        logits = output.logits_of(states, negatives.items)
        own = _among(negatives.items, items)
        competing = ~_without(own, negatives.items, excluded)
    else:
        logits = output.own_logits(states, negatives.items)
        own = _equal_any(negatives.items, items)
        absent = own if excluded is None else own | _pairs_among(negatives.items, excluded, output.num_items)
        competing = ~absent
    log_weight = negatives.log_weight.to(logits)
    kept = item_logits.masked_fill(_repeated(items), -math.inf)
    logsumexp, negative_loss = None, None
    if settings.base_loss == "sampled":
        rest = (logits + log_weight).masked_fill(~competing, -math.inf)
        logsumexp = torch.cat([kept, rest], dim=1).logsumexp(dim=1)
    else:
        count = competing.sum(dim=1)
        negative_loss = torch.stack([(F.softplus(logits) * competing).sum(dim=1), count.to(logits)], dim=1)
    apart = None if columns is None else torch.isin(negatives.items, columns.to(negatives.items))
    dro = None
    if propensity is not None and settings.alpha:
        left_out = own if apart is None else own | apart
        dro = _robust(settings, propensity, logits, negatives, item_logits, items, left_out)
        dro = dro if settings.weighs_candidates else dro[:, :1]
    terms = VocabularyTerms(item_logits, logsumexp, dro, negative_loss, negatives.share)
    weights = None
    if teacher is not None and settings.weighs_candidates:
        ahead = competing if apart is None else competing & ~apart
        masked = logits.detach().masked_fill(~ahead, -math.inf)
        weights = _weights(settings, masked, negatives, kept.detach(), item_logits.detach()[:, 1:], teacher)
    base, robust, ranking = losses_of_terms(settings, terms, teacher, weights)
    total = of_base(settings, base, robust)
    if teacher is not None:
        total = total + settings.lam * ranking
    return {"total": total, "base": base.detach(), "dro": robust.detach(), "ranking": ranking.detach()}


def _among(drawn: Tensor, items: Tensor) -> Tensor:
    """Which of the drawn items, ascending [N], are among a row's items [S, M]: bool [S, N]."""
    place = torch.searchsorted(drawn, items.contiguous()).clamp_(max=len(drawn) - 1)
    found = drawn[place] == items
    mask = torch.zeros(len(items), len(drawn) + 1, dtype=torch.bool, device=items.device)
    # What is not found is marked in a column that is dropped.
    return mask.scatter_(1, torch.where(found, place, len(drawn)), True)[:, :-1]


def _without(own: Tensor, drawn: Tensor, excluded: Pairs | None) -> Tensor:
    """``own`` [S, N], and what is excluded."""
    if excluded is None:
        return own
    rows, items = excluded
    place = torch.searchsorted(drawn, items).clamp_(max=len(drawn) - 1)
    # Without picking out what was drawn, for whose number a device would have to be waited.
    place = torch.where(drawn[place] == items, place, len(drawn))
    mask = F.pad(own, (0, 1))
    mask.view(-1).index_fill_(0, rows * mask.shape[1] + place, True)
    return mask[:, :-1]


def of_drawn(excluded: Pairs, drawn: Tensor) -> Pairs:
    """The pairs of row and item whose item is among the drawn ones, ascending [N]."""
    rows, items = excluded
    place = torch.searchsorted(drawn, items).clamp_(max=len(drawn) - 1)
    found = (drawn[place] == items).nonzero().squeeze(1)
    return rows[found], items[found]


def _equal_any(drawn: Tensor, items: Tensor) -> Tensor:
    """Which of each row's drawn items [S, N] are among its items [S, M]: bool [S, N]."""
    found = torch.zeros(drawn.shape, dtype=torch.bool, device=drawn.device)
    for item in items.split(1, dim=1):
        found |= drawn == item
    return found


def _pairs_among(drawn: Tensor, excluded: Pairs, num_items: int) -> Tensor:
    """Which of each row's drawn items [S, N] are excluded in it: bool [S, N]."""
    rows, items = excluded
    keys = rows * num_items + items
    if num_items <= FEW * drawn.shape[1]:
        mask = torch.zeros(len(drawn), num_items, dtype=torch.bool, device=drawn.device)
        mask.view(-1).index_fill_(0, keys, True)
        return mask.gather(1, drawn)
    if not len(keys):
        return torch.zeros(drawn.shape, dtype=torch.bool, device=drawn.device)
    keys = keys.sort().values
    asked = torch.arange(len(drawn), device=drawn.device).unsqueeze(1) * num_items + drawn
    return keys[torch.searchsorted(keys, asked).clamp_(max=len(keys) - 1)] == asked


def _repeated(items: Tensor) -> Tensor:
    """Whether an item of a row [S, M] stands before in it: bool [S, M]."""
    return (items.unsqueeze(2) == items.unsqueeze(1)).tril(-1).any(dim=2)


def _robust(
    settings: ObjectiveSettings,
    propensity: Tensor,
    logits: Tensor,
    negatives: Negatives,
    item_logits: Tensor,
    items: Tensor,
    left_out: Tensor,
) -> Tensor:
    """Robust terms [S, M] of the items [S, M], the sum over the others estimated by the drawn ones' logits [S, N].

    Those drawn that are ``left_out`` [S, N] are not in it, as the row's own items.
    """
    check_beta(settings.beta)
    sharpness = (propensity.detach() / settings.beta).to(logits)
    exponents = sharpness[negatives.items] * logits.square() + negatives.log_weight.to(logits)
    rest = exponents.masked_fill(left_out, -math.inf)
    # A logarithm of 0, without a gradient that is no number, where all drawn items are the row's own.
    rest = torch.cat([rest, rest.new_full((len(rest), 1), torch.finfo(rest.dtype).min)], dim=1).logsumexp(dim=1)
    return robust_terms(item_logits, items, sharpness[items], rest)


def _weights(
    settings: ObjectiveSettings,
    competing: Tensor,
    negatives: Negatives,
    kept: Tensor,
    asked: Tensor,
    teacher: TeacherBatch,
) -> Tensor:
    """The candidates' importance [S, K], 0 where a sample is not distilled.

    Args:
        settings: gammas and temperature.
        competing: logits of the drawn items [S, N], minus infinity where one does not compete.
        negatives: the drawn items.
        kept: logits of target and candidates [S, 1 + K], minus infinity where one is repeated.
        asked: logits of the candidates [S, K], each as it is, the target too where it is one of them.
        teacher: its batch.
    """
    row = teacher.distilled_rows()
    count = teacher.candidates.shape[1]

    def consistency(own: Tensor, candidates: Tensor) -> Tensor:
        """As `losses.consistency_weights`, from estimated ranks; ``own`` are the row's logits of ``kept``."""
        weight = negatives.log_weight.exp()
        ahead = estimated_items_ahead(competing[row], weight, own, asked[row], count, negatives.least)
        return (ahead < count).to(own.dtype) + SMALL

    found = candidate_weights(
        kept[row],
        teacher.candidates[row],
        teacher.distance[row],
        gamma_position=settings.gamma_position,
        gamma_confidence=settings.gamma_confidence,
        gamma_consistency=settings.gamma_consistency,
        temperature=settings.temperature,
        consistency=consistency,
    )
    return found.new_zeros(teacher.candidates.shape).index_copy(0, row, found)


def estimated_items_ahead(
    drawn: Tensor, weight: Tensor, own: Tensor, asked: Tensor, enough: int, least: float | None = None
) -> Tensor:
    """How many items have a larger logit than each of ``asked`` [S, K], exact up to ``enough`` of the estimate.

    Args:
        drawn: logits of drawn items [S, N], minus infinity for those that do not compete.
        weight: how many items each drawn one stands for [N].
        own: logits [S, M] of items that are known, each once; minus infinity for none.
        asked: logits [S, K].
        enough: an estimate of at least so many may be returned too small, but not below it.
        least: the smallest of ``weight``; None reads it.
    """
    least = float(weight.min()) if least is None else least
    # Only so many of the largest can be ahead of an item with fewer than ``enough`` ahead.
    most = min(drawn.shape[1], math.ceil(enough / max(least, 1e-3)))
    largest = drawn.topk(most, dim=1)
    ahead = (largest.values.unsqueeze(1) > asked.unsqueeze(2)).to(drawn.dtype)
    found = torch.bmm(ahead, weight.to(drawn.dtype)[largest.indices].unsqueeze(2)).squeeze(2)
    return found + (own.unsqueeze(1) > asked.unsqueeze(2)).sum(dim=2)
