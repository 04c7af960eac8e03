"""Ranking distillation: the student learns the teacher's candidates, one at a time or as a list."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distill.exclusion import Excluded
from recdistill.distill.losses import target_items
from recdistill.distill.vocabulary import VocabularyTerms, vocabulary_terms
from recdistill.errors import InputError


def ranking_distillation(
    logits: Tensor,
    candidates: Tensor,
    weights: Tensor,
    *,
    kind: str = "ce",
    negative: Tensor | None = None,
    propensity: Tensor | None = None,
    alpha: float = 0.0,
    beta: float = 1.0,
    release_compat: bool = False,
    excluded: Excluded | None = None,
) -> Tensor:
    """Importance-aware ranking distillation (DLLM2Rec, RecSys 2024), a scalar.

    ``sum_k mean_s w_sk (loss(c_sk) + alpha DRO(c_sk))``. With ``kind`` ``bce`` the loss of a candidate is, as
    released, ``-log sigmoid(z_c) - log(1 - sigmoid(z_n))``: a sum, while the base loss is a mean over both.
    With ``ce`` it is the candidate's cross-entropy ``-log softmax(z)_c``, whose normaliser the K share.

    Args:
        logits: the student's [S, V].
        candidates: the teacher's item ids [S, K].
        weights: their importance [S, K], of `candidate_weights.candidate_weights`.
        kind: ``ce`` or ``bce``.
        negative: one sampled item id a sample [S], for ``bce``.
        propensity: [V], needed where alpha is not 0.
        alpha: weight of the robust term.
        beta: of the robust term, above 0.
        release_compat: keep two defects of the released code: ``log sigmoid(1 - z_n)`` where ``bce`` needs
            ``log(1 - sigmoid(z_n))``, and robust terms that meet the weights of all samples,
            ``mean_s(w_sk) mean_s(DRO(c_sk))``.
        excluded: what the softmax of ``ce`` leaves out; see `vocabulary.vocabulary_terms`. No candidate may be there.

    Raises:
        InputError: unknown kind, a missing negative or propensity, or shapes that do not fit.
    """
    if candidates.ndim != 2 or candidates.shape != weights.shape:
        raise InputError(
            f"candidates {list(candidates.shape)} and weights {list(weights.shape)} do not fit; give [S, K] both"
        )
    count = candidates.shape[1]
    negatives = target_items(candidates[:, 0], kind, negative)[:, 1:]
    if alpha and propensity is None:
        raise InputError("alpha is not 0, so the robust term needs the items' propensity, [V]; give it")
    terms = vocabulary_terms(
        logits,
        torch.cat([candidates, negatives], dim=1),
        with_logsumexp=kind == "ce",
        propensity=propensity if alpha else None,
        beta=beta,
        robust=count,
        excluded=excluded,
    )
    return ranking_of_terms(terms, slice(0, count), weights, kind, alpha, None, release_compat)


def ranking_kl(logits: Tensor, candidates: Tensor, distance: Tensor, temperature: float = 1.0) -> Tensor:
    """Listwise alternative: ``T^2 KL(teacher || student)`` over the K candidates, the mean over samples.

    The teacher's distribution is ``softmax(-distance / T)``, the student's ``softmax(z_c / T)``, over the K
    candidates only (Hinton et al., 2015, whose factor T^2 keeps the gradient's size).

    Args:
        logits: the student's [S, V].
        candidates: the teacher's item ids [S, K], without repeats.
        distance: the teacher's distances [S, K], small is sure.
        temperature: T, above 0.

    Raises:
        InputError: shapes do not fit, or the temperature is not above 0.
    """
    if candidates.ndim != 2 or candidates.shape != distance.shape:
        raise InputError(
            f"candidates {list(candidates.shape)} and distances {list(distance.shape)} do not fit; give [S, K] both"
        )
    terms = vocabulary_terms(logits, candidates, with_logsumexp=False)
    return kl_of_terms(terms, slice(0, candidates.shape[1]), distance, temperature, None)


def ranking_of_terms(
    terms: VocabularyTerms,
    columns: slice,
    weights: Tensor,
    kind: str,
    alpha: float,
    distilled: Tensor | None,
    release_compat: bool,
) -> Tensor:
    """`ranking_distillation` of terms with the candidates in ``columns`` and, for ``bce``, the negative last.

    ``distilled`` [S] bool, or None for all: the samples that count; the mean is over all S, the others being 0.
    """
    candidate_logits = terms.item_logits[:, columns]
    if kind == "ce":
        assert terms.logsumexp is not None
        losses = terms.logsumexp.unsqueeze(1) - candidate_logits
    else:
        negative_logits = terms.item_logits[:, -1:]
        # Defect 1 of the release scores the negative by -log sigmoid(1 - z_n).
        losses = F.softplus(-candidate_logits) + F.softplus(negative_logits - (1 if release_compat else 0))
    share = _share(losses, distilled)
    weights = weights.detach().to(losses)
    if not alpha:
        return (share * (weights * losses).sum(dim=1)).sum()
    assert terms.dro is not None
    robust = terms.dro[:, columns]
    if not release_compat:
        return (share * (weights * (losses + alpha * robust)).sum(dim=1)).sum()
    # Defect 2 of the release: weights [S, 1] times robust terms [S] makes [S, S], the product of the means.
    crossed = (share @ weights) * (share @ robust)
    return (share * (weights * losses).sum(dim=1)).sum() + alpha * crossed.sum()


def kl_of_terms(
    terms: VocabularyTerms, columns: slice, distance: Tensor, temperature: float, distilled: Tensor | None
) -> Tensor:
    """`ranking_kl` of terms with the candidates in ``columns``; ``distilled`` as in `ranking_of_terms`."""
    if not temperature > 0 or not math.isfinite(temperature):
        raise InputError(f"temperature is {temperature}; give a number above 0")
    student = torch.log_softmax(terms.item_logits[:, columns] / temperature, dim=1)
    teacher = torch.log_softmax(-distance.detach().to(student) / temperature, dim=1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=1)
    return temperature**2 * (_share(student, distilled) * divergence).sum()


def _share(like: Tensor, distilled: Tensor | None) -> Tensor:
    """Each sample's share of the mean over all [S]: 1 / S, and 0 where it is not distilled."""
    share = like.new_full((len(like),), 1 / max(1, len(like)))
    return share if distilled is None else share * distilled
