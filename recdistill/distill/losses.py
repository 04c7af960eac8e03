"""Losses of a sequential recommender on its logits: base loss, robust term, embedding distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distill.vocabulary import VocabularyTerms, vocabulary_terms
from recdistill.errors import InputError

BASE_LOSSES = ("ce", "bce")
EMBEDDING_LOSSES = ("mse", "cosine")


def base_loss(logits: Tensor, target: Tensor, kind: str = "ce", negative: Tensor | None = None) -> Tensor:
    """Next-item loss, a scalar: the mean over samples.

    Args:
        logits: [S, V].
        target: item ids [S].
        kind: ``ce``, cross-entropy over all items; or ``bce``, the mean over the 2S logits of
            ``-log sigmoid(z_y)`` and ``-log(1 - sigmoid(z_n))`` (DLLM2Rec's base loss).
        negative: one sampled item id a sample [S], for ``bce``.

    Raises:
        InputError: unknown kind, ``bce`` without negatives, or shapes that do not fit.
    """
    items = target_items(target, kind, negative)
    return base_loss_of_terms(vocabulary_terms(logits, items, with_logsumexp=kind == "ce"), kind)


def dro(logits: Tensor, propensity: Tensor, items: Tensor, beta: float = 1.0) -> Tensor:
    """Robust term of items (DROS; DLLM2Rec, RecSys 2024), exact and finite for any finite logits.

    ``log(sum_i exp(p_i z_i^2 / beta) - exp(p_t z_t^2 / beta) + exp(p_t (z_t - 1)^2 / beta))``. The K items of
    a row share one pass over the vocabulary; see `vocabulary.vocabulary_terms`.

    Args:
        logits: [S, V].
        propensity: [V], of `propensity.propensity`.
        items: item ids t, [S] or [S, K].
        beta: above 0.

    Returns:
        One term an item, the shape of ``items``.

    Raises:
        InputError: shapes do not fit, or beta is not above 0.
    """
    columns = items.unsqueeze(1) if items.ndim == 1 else items
    terms = vocabulary_terms(
        logits, columns, with_logsumexp=False, propensity=propensity, beta=beta, robust=columns.shape[1]
    )
    assert terms.dro is not None
    return terms.dro.view(items.shape)


def output_embedding_distillation(student: Tensor, teacher: Tensor, kind: str = "mse") -> Tensor:
    """Distance of the student's sequence embeddings to the teacher's, a scalar: the mean over samples.

    Args:
        student: [S, D], projected to the teacher's width where the widths differ.
        teacher: [S, D]; no gradient reaches it.
        kind: ``mse``, the mean of squared differences, or ``cosine``, one minus the cosine.

    Raises:
        InputError: unknown kind, or shapes that differ.
    """
    if kind not in EMBEDDING_LOSSES:
        raise InputError(f"unknown embedding loss {kind!r}; choose one of {', '.join(EMBEDDING_LOSSES)}")
    if student.shape != teacher.shape or student.ndim != 2:
        raise InputError(
            f"student embeddings {list(student.shape)} and teacher embeddings {list(teacher.shape)} do not "
            "fit; project one to the other, [S, D]"
        )
    teacher = teacher.detach().to(student)
    if len(student) == 0:
        return student.sum()
    if kind == "mse":
        return F.mse_loss(student, teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def target_items(target: Tensor, kind: str, negative: Tensor | None) -> Tensor:
    """The items whose logits a base loss needs: [S, 1], or with the negative [S, 2]."""
    if kind not in BASE_LOSSES:
        raise InputError(f"unknown base loss {kind!r}; choose one of {', '.join(BASE_LOSSES)}")
    if kind == "ce":
        return target.unsqueeze(1)
    if negative is None or negative.shape != target.shape:
        found = "none" if negative is None else list(negative.shape)
        raise InputError(f"base loss 'bce' needs a sampled negative a sample, {list(target.shape)}; got {found}")
    return torch.stack([target, negative], dim=1)


def base_loss_of_terms(terms: VocabularyTerms, kind: str) -> Tensor:
    """`base_loss` where the target is the first item of the terms and the negative the last."""
    logits = terms.item_logits
    if kind == "ce":
        assert terms.logsumexp is not None
        return (terms.logsumexp - logits[:, 0]).mean()
    return 0.5 * (F.softplus(-logits[:, 0]) + F.softplus(logits[:, -1])).mean()
