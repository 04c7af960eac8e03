"""One pass over the logits of all items, from which every loss of a step is made.

The losses need, of each row [V] of logits, the logits of a few items, the log-sum-exp of the row
(cross-entropy) and the log-sum-exp of ``p z^2 / beta`` (the robust term). The pass takes them together; all later
tensors are of the size [S, M].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recdistill.distillation.exclusion import Excluded, Pairs
from recdistill.errors import InputError

# Logits handled at a time on a CPU: 1 MiB in float32, so that a block stays in the cache between operations.
BLOCK_LOGITS = 2**18


@dataclass(frozen=True)
class VocabularyTerms:
    """Result of `vocabulary_terms`.

    Attributes:
        item_logits: logits of the asked items [S, M].
        logsumexp: ``log sum_i exp(z_i)`` [S], or None where not asked for.
        dro: the robust term of each robust item [S, R], or None without propensity.
        negatives: of drawn negatives, the sum of ``-log(1 - sigmoid(z_n))`` and their number [S, 2], or None.
        sampled_share: the share of the catalogue that was drawn as negatives.
    """

    item_logits: Tensor
    logsumexp: Tensor | None
    dro: Tensor | None
    negatives: Tensor | None = None
    sampled_share: float = 1.0


def vocabulary_terms(
    logits: Tensor,
    items: Tensor,
    *,
    with_logsumexp: bool,
    propensity: Tensor | None = None,
    beta: float = 1.0,
    robust: int = 0,
    excluded: Excluded | Pairs | None = None,
) -> VocabularyTerms:
    """Logits of some items, the log-sum-exp, and the robust term of DROS, with one read of ``logits``.

    The robust term of item t is ``log(sum_{i != t} exp(p_i z_i^2 / beta) + exp(p_t (z_t - 1)^2 / beta))``
    (DROS; DLLM2Rec, RecSys 2024). Nothing is subtracted: the pass sums over all items but the row's R robust
    ones, and each robust item adds the R - 1 others, so it is exact also where t dominates the sum.

    Args:
        logits: [S, V], float16 and bfloat16 are computed in float32.
        items: item ids [S, M]; an id may repeat.
        with_logsumexp: whether to compute ``logsumexp``.
        propensity: [V], or None for no robust term.
        beta: the robust term's temperature, above 0.
        robust: R, the first columns of ``items`` that get a robust term.
        excluded: items that ``logsumexp`` leaves out, see `exclusion`; no row may lose all. Of them the columns leave
            the robust term, too.

    Raises:
        InputError: shapes do not fit, or beta is not above 0.
    """
    if logits.ndim != 2 or items.ndim != 2 or items.shape[0] != logits.shape[0]:
        raise InputError(
            f"logits {list(logits.shape)} and items {list(items.shape)} do not fit; give [S, V] and [S, M]"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if propensity is None or robust == 0:
        if not with_logsumexp:
            return VocabularyTerms(logits.gather(1, items), None, None)
        item_logits, logsumexp, _ = _VocabularyPass.apply(logits, items, None, 0, True, excluded)
        return VocabularyTerms(item_logits, logsumexp, None)
    sharpness = item_sharpness(propensity, beta, logits, logits.shape[1])
    item_logits, logsumexp, rest = _VocabularyPass.apply(logits, items, sharpness, robust, with_logsumexp, excluded)
    robust_items = items[:, :robust]
    dro = robust_terms(item_logits[:, :robust], robust_items, sharpness[robust_items], rest)
    return VocabularyTerms(item_logits, logsumexp, dro)


def item_sharpness(propensity: Tensor | None, beta: float, like: Tensor, num_items: int) -> Tensor:
    """``p / beta`` of each item [V], of the type of ``like``. Raises InputError where shape or beta are not valid."""
    if propensity is None or propensity.shape != (num_items,):
        found = "none" if propensity is None else list(propensity.shape)
        raise InputError(f"propensity {found} does not fit {num_items} items; give one for each item")
    check_beta(beta)
    return (propensity.detach() / beta).to(like)


def check_beta(beta: float) -> None:
    """Raise InputError unless the robust term's temperature is above 0."""
    if not beta > 0 or not math.isfinite(beta):
        raise InputError(f"beta is {beta}; give a number above 0")


def robust_terms(item_logits: Tensor, items: Tensor, sharpness: Tensor, rest: Tensor) -> Tensor:
    """Robust terms [S, R] of logits, ids and ``p / beta`` of the items [S, R] and the rest's log-sum [S]."""
    rows, count = items.shape
    kept = sharpness * item_logits.square()
    moved = sharpness * (item_logits - 1).square()
    same = items.unsqueeze(2) == items.unsqueeze(1)  # (S, R, R)
    repeated = same.tril(-1).any(dim=2)  # an item listed twice is one item of the sum
    others = kept.unsqueeze(1).expand(rows, count, count)
    others = others.masked_fill(same | repeated.unsqueeze(1), -math.inf)
    rest = rest.view(rows, 1, 1).expand(rows, count, 1)
    return torch.cat([others, rest, moved.unsqueeze(2)], dim=2).logsumexp(dim=2)


class _VocabularyPass(torch.autograd.Function):
    """Item logits [S, M], log-sum-exp [S], and log-sum of ``exp(sharpness z^2)`` less the robust items [S].

    The exponentials are kept, so that the gradient is one multiplication a term.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        items: Tensor,
        sharpness: Tensor | None,
        robust: int,
        with_logsumexp: bool,
        excluded: Excluded | Pairs | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        keep = ctx.needs_input_grad[0]
        absent = None if excluded is None else Excluded(*excluded)
        rows = logits.shape[0]
        block = _rows_a_block(logits)
        softmax = torch.empty_like(logits) if keep and with_logsumexp else None
        slope = torch.empty_like(logits) if keep and sharpness is not None else None
        logsumexp = logits.new_empty(rows, 1) if with_logsumexp else None
        rest = logits.new_empty(rows, 1) if sharpness is not None else None
        for start in range(0, rows, block):
            part = slice(start, min(start + block, rows))
            values = logits[part]
            if logsumexp is not None:
                exponentials = softmax[part] if softmax is not None else torch.empty_like(values)
                competing = values
                if absent is not None:
                    competing = _without(absent, start, exponentials.copy_(values))
                highest = competing.amax(dim=1, keepdim=True)
                total = torch.sub(competing, highest, out=exponentials).exp_().sum(dim=1, keepdim=True)
                torch.add(highest, total.log(), out=logsumexp[part])
                if softmax is not None:
                    exponentials.div_(total)
            if rest is not None and sharpness is not None:
                exponents = slope[part] if slope is not None else torch.empty_like(values)
                torch.mul(values, values, out=exponents).mul_(sharpness)
                factor = robust_block(
                    values,
                    exponents,
                    items[part, :robust],
                    sharpness,
                    rest[part],
                    with_slope=slope is not None,
                    lower=None if absent is None else partial(_lower_columns, absent, start),
                )
                if factor is not None:
                    exponents.mul_(factor)
        ctx.save_for_backward(items, softmax, slope)
        ctx.shape = logits.shape
        ctx.set_materialize_grads(False)
        return (
            logits.gather(1, items),
            None if logsumexp is None else logsumexp.squeeze(1),
            None if rest is None else rest.squeeze(1),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        items, softmax, slope = ctx.saved_tensors
        of_items, of_logsumexp, of_rest = gradients
        dense = [
            (values, gradient.unsqueeze(1))
            for values, gradient in ((softmax, of_logsumexp), (slope, of_rest))
            if values is not None and gradient is not None
        ]
        if not dense:
            result = torch.zeros_like(softmax if softmax is not None else slope)
        else:
            result = torch.empty_like(dense[0][0])
            block = _rows_a_block(result)
            for start in range(0, len(result), block):
                part = slice(start, start + block)
                torch.mul(dense[0][0][part], dense[0][1][part], out=result[part])
                for values, gradient in dense[1:]:
                    result[part].addcmul_(values[part], gradient[part])
        if of_items is not None:
            result.scatter_add_(1, items, of_items)
        return result, None, None, None, None, None


def _without(excluded: Excluded, start: int, values: Tensor) -> Tensor:
    """Sets the excluded items of ``values``, the rows from ``start`` on, to minus infinity, in place; returns them."""
    _lower_columns(excluded, start, values)
    values[_pairs_of_block((excluded.rows, excluded.items), start, values)] = -math.inf
    return values


def _lower_columns(excluded: Excluded, start: int, values: Tensor, low: float = -math.inf) -> None:
    """Set the excluded columns to ``low``, in place, but where an item competes all the same."""
    if excluded.columns is not None:
        kept = None if excluded.kept is None else _pairs_of_block(excluded.kept, start, values)
        spared = None if kept is None else values[kept]
        values.index_fill_(1, excluded.columns, low)
        if kept is not None and spared is not None:
            values[kept] = spared


def _pairs_of_block(pairs: Pairs, start: int, values: Tensor) -> Pairs:
    """The pairs of the rows of a block that begins at ``start``, with rows counted from 0."""
    rows, items = pairs
    first, last = torch.searchsorted(rows, rows.new_tensor([start, start + len(values)])).tolist()
    return rows[first:last] - start, items[first:last]


def robust_block(
    values: Tensor,
    exponents: Tensor,
    robust_items: Tensor,
    sharpness: Tensor,
    rest: Tensor,
    *,
    with_slope: bool,
    lower: Callable[[Tensor, float], None] | None = None,
    shifted: bool = True,
) -> Tensor | None:
    """Fill ``rest`` [S, 1], the log-sum of ``exp(sharpness z^2)`` without the robust items.

    Args:
        values: the logits z [S, V].
        exponents: ``sharpness z^2`` [S, V]; changed in place.
        robust_items: ids [S, R].
        sharpness: ``p / beta`` of each item [V].
        rest: [S, 1], written.
        with_slope: whether ``exponents`` shall become the gradient of ``rest`` at the logits, up to a factor a row.
        lower: sets what else is left out to a value, in place; None for nothing.
        shifted: whether exponents may be too large for their exponential.

    Returns:
        The factor [S, 1] of the gradient; None without.
    """
    low = -math.inf if shifted else 0.0
    if not shifted:
        # What is left out is set to 0 later: the exponential of minus infinity takes several times as long.
        exponents.exp_()
    if lower is not None:
        lower(exponents, low)
    exponents.scatter_(1, robust_items, low)
    if shifted:
        # Exponents are at least 0, save where no item is left.
        highest = exponents.amax(dim=1, keepdim=True).clamp_(min=0)
        total = exponents.sub_(highest).exp_().sum(dim=1, keepdim=True)
        torch.add(highest, total.log(), out=rest)
    else:
        total = exponents.sum(dim=1, keepdim=True)
        torch.log(total, out=rest)
    if not with_slope:
        return None
    exponents.mul_(values).mul_(sharpness)
    # d rest / d z_i = 2 sharpness_i z_i exp(...) / total; a total of 0 has no item, so no slope.
    return torch.where(total > 0, 2.0 / total, 0.0)


def _rows_a_block(logits: Tensor) -> int:
    """Rows handled at a time: all on an accelerator."""
    if logits.device.type != "cpu":
        return max(1, logits.shape[0])
    return max(1, BLOCK_LOGITS // max(1, logits.shape[1]))
