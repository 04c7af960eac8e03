"""DLLM2Rec's loss from states and an output layer, by blocks of rows: logits of all samples are never held.

The same as `losses.plain_loss` of ``states @ weight^T + bias``. The loss and its gradient at states and output layer
are computed together, block by block; what is held of the size of the catalogue is one block of logits (two with the
robust term) and the output layer's gradient. The idea is that of Cut Cross-Entropy (Wijmans et al., ICLR 2025).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recdistill.distillation.exclusion import Pairs, on_device
from recdistill.distillation.fused import losses_of_terms, of_base, weights_of_distilled
from recdistill.distillation.losses import prepared_inputs, share_of_mean, with_negative
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.distillation.vocabulary import VocabularyTerms, item_sharpness, robust_block, robust_terms
from recdistill.errors import InputError

# Logits of a block on a CPU, 1.5 MiB in float32, and the fewest and most rows: smaller products waste the processor.
BLOCK_LOGITS, LEAST_ROWS, MOST_ROWS = 3 * 2**17, 128, 512
# Logits of a block on an accelerator: 256 MiB in float32.
ACCELERATOR_LOGITS = 2**26
# Exponentials of logits up to so much, either way, need no shift: their sums fit in float32.
SAFE_LOGIT = 60.0
# Below all such logits, its exponential being no subnormal number, which would take many times as long.
LOW_LOGIT = -80.0


def blockwise_loss(
    settings: ObjectiveSettings,
    states: Tensor,
    output: OutputLayer,
    target: Tensor,
    teacher: TeacherBatch | None = None,
    *,
    negative: Tensor | None = None,
    propensity: Tensor | None = None,
    excluded: Pairs | None = None,
    columns: Tensor | None = None,
) -> dict[str, Tensor]:
    """The objective of `fused.fused_loss`, whose arguments and result these are, without the logits of all samples.

    Args:
        states: [S, D]; float16 and bfloat16 are computed in float32.
        output: the layer that scores items.

    Raises:
        InputError: an input is missing, shapes do not fit, the release's defects are asked for, which mix samples, or
            the base loss is over shared negatives.
    """
    if settings.samples_negatives:
        raise InputError(f"base loss {settings.base_loss!r} is not computed from all logits; use sampled_loss")
    if settings.mixes_samples:
        raise InputError("release_compat mixes all samples of a batch; compute it from logits, with fused_loss")
    teacher = checked_teacher(settings, target, teacher, propensity)
    items = target.unsqueeze(1)
    if teacher is not None:
        items = torch.cat([items, teacher.candidates], dim=1)
    if settings.needs_negative:
        items = with_negative(items, negative)
    if states.dtype in (torch.float16, torch.bfloat16):
        states, output = states.float(), output.float()
    if not needs_all_items(settings, teacher):
        terms = VocabularyTerms(output.item_logits(states, items), None, None)
        ranked = teacher is not None and settings.weighs_candidates
        weights = weights_of_distilled(settings, terms.item_logits, teacher, None) if ranked and teacher else None
        base, robust, ranking = losses_of_terms(settings, terms, teacher, weights)
        total = of_base(settings, base, robust)
        total = total if teacher is None else total + settings.lam * ranking
    else:
        sharpness = item_sharpness(propensity, settings.beta, states, output.num_items) if settings.alpha else None
        problem = _Problem(settings, items, output.num_items, teacher, sharpness, excluded, columns)
        total, base, robust, ranking = _Blockwise.apply(states, output.weight, output.bias, problem)
    return {"total": total, "base": base.detach(), "dro": robust.detach(), "ranking": ranking.detach()}


def checked_teacher(
    settings: ObjectiveSettings, target: Tensor, teacher: TeacherBatch | None, propensity: Tensor | None
) -> TeacherBatch | None:
    """The teacher's batch with valid ids in all rows, None where ``lam`` is 0; raises as `losses.prepared_inputs`."""
    return prepared_inputs(settings, target, teacher, propensity, None)[0]


def needs_all_items(settings: ObjectiveSettings, teacher: TeacherBatch | None) -> bool:
    """Whether a loss reads every item's logit; else those of targets, candidates and negatives are enough."""
    return settings.needs_softmax or bool(settings.alpha) or (teacher is not None and settings.finds_best)


@dataclass(frozen=True)
class _Problem:
    """What a batch is beside states and output layer; ``items`` [S, M]: target, candidates, negative."""

    settings: ObjectiveSettings
    items: Tensor
    num_items: int
    teacher: TeacherBatch | None
    sharpness: Tensor | None
    excluded: Pairs | None
    columns: Tensor | None

    @property
    def kept(self) -> int:
        """The first columns of ``items``, target and candidates, which compete, excluded or not."""
        return 1 if self.teacher is None else 1 + self.teacher.candidates.shape[1]

    @property
    def held(self) -> int:
        """Tensors of a block's size: the logits, and the slopes of the robust term."""
        return 1 if self.sharpness is None else 2

    @property
    def softmax_of_all(self) -> bool:
        """Whether each row's total has a part of its softmax, so that its gradient there is never 0."""
        return self.settings.base_loss == "ce" and self.settings.base_weight > 0

    @property
    def finds_best(self) -> bool:
        """Whether the student's top K is searched for among what competes."""
        return self.teacher is not None and self.settings.finds_best

    def blocks(self, device: torch.device) -> Iterator[tuple[slice, Pairs | None]]:
        """Each block's rows, and what is excluded in them, on the device, its rows counted from 0.

        The device is not waited for: of pairs that lie there all go to every block, for where a block's begin is not
        known.
        """
        rows = len(self.items)
        height = even_height(rows, block_rows(self.num_items, device, self.held))
        starts = list(range(0, rows, max(1, height)))
        if self.excluded is None or len(starts) < 2:
            for start in starts:
                whole = None if self.excluded is None else on_device(self.excluded, device)
                yield slice(start, min(start + height, rows)), whole
            return
        of_row, items = self.excluded
        if not is_read_at_once(of_row):
            for start in starts:
                part = slice(start, min(start + height, rows))
                yield part, pairs_within(self.excluded, part, self.items[start, 0])
            return
        bounds = torch.searchsorted(of_row, torch.tensor([*starts, rows], device=of_row.device)).tolist()
        for start, first, last in zip(starts, bounds, bounds[1:], strict=False):
            pairs = (of_row[first:last] - start, items[first:last])
            yield slice(start, min(start + height, rows)), on_device(pairs, device)


def is_read_at_once(values: Tensor) -> bool:
    """Whether reading values waits for no device."""
    return values.device.type == "cpu"


def pairs_within(pairs: Pairs, part: slice, target: Tensor) -> Pairs:
    """As many pairs: those of the rows of ``part``, counted from 0, and in place of each other one ``(0, target)``.

    A row's target competes, excluded or not: see `_lower`.

    >>> rows, items = pairs_within((torch.tensor([0, 1, 3]), torch.tensor([7, 8, 9])), slice(1, 3), torch.tensor(5))
    >>> rows.tolist(), items.tolist()
    ([0, 0, 0], [5, 8, 5])
    """
    rows, items = pairs
    inside = (rows >= part.start) & (rows < part.stop)
    return (rows - part.start) * inside, torch.where(inside, items, target)


def block_rows(num_items: int, device: torch.device, held: int = 1) -> int:
    """Rows of a block where ``held`` tensors [rows, V] are held at a time."""
    if device.type != "cpu":
        return max(LEAST_ROWS, ACCELERATOR_LOGITS // num_items) // held
    return min(MOST_ROWS, max(LEAST_ROWS, BLOCK_LOGITS // num_items)) // held


def even_height(rows: int, most: int) -> int:
    """Rows of a block where all blocks of at most ``most`` rows are about as high."""
    return -(-rows // max(1, -(-rows // most)))


class _Blockwise(torch.autograd.Function):
    """Total, base, robust and ranking loss; the gradient of the total is made with them."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, problem: _Problem
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        differentiate = any(ctx.needs_input_grad)
        sums = states.new_zeros(4)
        gradients: list[Tensor | None] = [None, None, None]
        if differentiate:
            gradients = [torch.empty_like(states), torch.zeros_like(weight), None]
            gradients[2] = None if bias is None else torch.zeros_like(bias)
        table = weight[: problem.num_items]
        half = table.bfloat16() if problem.settings.bf16 else None
        shifted = _shifted(problem, states, table, bias)
        height = even_height(len(states), block_rows(problem.num_items, states.device, problem.held))
        held = [states.new_empty(height, problem.num_items) for _ in range(problem.held)]
        for part, excluded in problem.blocks(states.device):
            rows = states[part]
            values, *slope = (one[: len(rows)] for one in held)
            _score(values, rows, table if half is None else half, bias)
            found, scale = _block(problem, part, excluded, values, slope[0] if slope else None, shifted, differentiate)
            sums += found
            if differentiate:
                _add_gradients(gradients, part, values, scale, rows, table if half is None else half)
        ctx.gradients = gradients
        total, *others = sums.unbind()
        ctx.mark_non_differentiable(*others)
        return (total, *others)  # type: ignore[return-value]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (*(None if one is None else one * of_total for one in ctx.gradients), None)


def _score(values: Tensor, rows: Tensor, table: Tensor, bias: Tensor | None) -> None:
    """Write the logits of rows [B, D] into ``values`` [B, V]; products are of numbers of the table's precision."""
    if table.dtype != rows.dtype:
        values.copy_(rows.to(table.dtype) @ table.T)
        if bias is not None:
            values.add_(bias)
    elif bias is None:
        torch.mm(rows, table.T, out=values)
    else:
        torch.addmm(bias, rows, table.T, out=values)


def _shifted(problem: _Problem, states: Tensor, table: Tensor, bias: Tensor | None) -> tuple[bool, bool]:
    """Whether logits, and exponents of the robust term, may be too large for their exponentials."""
    if states.device.type != "cpu":
        return True, True
    largest = _largest(states, table, bias)
    robust = 0.0 if problem.sharpness is None else float(problem.sharpness.amax()) * largest**2
    return largest > SAFE_LOGIT, robust > SAFE_LOGIT


def _largest(states: Tensor, table: Tensor, bias: Tensor | None) -> float:
    """A bound of the logits' size."""
    if not len(states):
        return 0.0
    bound = float(states.norm(dim=1).amax() * torch.linalg.vector_norm(table, dim=1).amax())
    return bound if bias is None else bound + float(bias.abs().amax())


def _block(
    problem: _Problem,
    part: slice,
    excluded: Pairs | None,
    values: Tensor,
    slope: Tensor | None,
    shifted: tuple[bool, bool],
    differentiate: bool,
) -> tuple[Tensor, Tensor | None]:
    """Losses of a block of logits ``values`` [B, V], which become their gradient, up to a factor a row.

    Returns the block's share of total, base, robust and ranking loss [4], and the factor [B, 1], or None for 1.
    """
    items = problem.items[part]
    item_logits, rest, logsumexp, total, weights, steepness = values.gather(1, items), *[None] * 5
    teacher = None if problem.teacher is None else problem.teacher.rows(part)
    kept = items[:, : problem.kept]
    if problem.sharpness is not None:
        rest = values.new_empty(len(values), 1)
        robust_items = items[:, : problem.kept] if problem.settings.weighs_candidates else items[:, :1]
        exponents = slope if slope is not None else torch.empty_like(values)
        torch.mul(values, values, out=exponents).mul_(problem.sharpness)
        steepness = robust_block(
            values,
            exponents,
            robust_items,
            problem.sharpness,
            rest,
            with_slope=differentiate,
            lower=partial(_lower, None, problem.columns, kept),
            shifted=shifted[1],
        )
    ranked = teacher is not None and problem.settings.weighs_candidates
    if problem.finds_best or shifted[0]:
        _lower(excluded, problem.columns, kept, values, -torch.inf if shifted[0] else LOW_LOGIT)
    if ranked and teacher is not None:
        weights = weights_of_distilled(problem.settings, values, teacher, None)
    if problem.settings.needs_softmax and shifted[0]:
        highest = values.amax(dim=1, keepdim=True)
        total = values.sub_(highest).exp_().sum(dim=1, keepdim=True)
        logsumexp = highest + total.log()
    elif problem.settings.needs_softmax:
        values.exp_()
        _lower(excluded, problem.columns, kept, values, 0.0)
        total = values.sum(dim=1, keepdim=True)
        logsumexp = total.log()
    share = len(values) / len(problem.items)
    losses, slopes = _small_losses(problem, teacher, weights, items, (item_logits, logsumexp, rest), share)
    if not differentiate:
        return losses, None
    of_items, of_logsumexp, of_rest = slopes
    if total is not None and slope is None and problem.softmax_of_all:
        # The factor is left to the products, which have few columns.
        factor = of_logsumexp / total
        values.scatter_add_(1, items, of_items / factor)
        return losses, factor
    if total is not None:
        values.mul_(of_logsumexp / total)
    else:
        values.zero_()
    if slope is not None and steepness is not None:
        values.addcmul_(slope, of_rest * steepness)
    values.scatter_add_(1, items, of_items)
    return losses, None


def _lower(excluded: Pairs | None, columns: Tensor | None, kept: Tensor, values: Tensor, low: float) -> None:
    """Set ``values`` [B, V] of what is excluded to ``low`` in place, save those of the items ``kept`` [B, K]."""
    if columns is None and excluded is None:
        return
    spared = values.gather(1, kept)
    if columns is not None:
        values.index_fill_(1, columns, low)
    if excluded is not None:
        rows, items = excluded
        values.view(-1).index_fill_(0, rows * values.shape[1] + items, low)
    values.scatter_(1, kept, spared)


def _small_losses(
    problem: _Problem,
    teacher: TeacherBatch | None,
    weights: Tensor | None,
    items: Tensor,
    read: tuple[Tensor, Tensor | None, Tensor | None],
    share: float,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Losses [4] of what was read of a block's logits, times its share of the samples, and the gradient there."""
    settings, (item_logits, logsumexp, rest) = problem.settings, read
    weighed = teacher is None or weights is not None
    if logsumexp is not None and rest is None and weighed and set(settings.losses_in_use) == {"ce"}:
        return _cross_entropies(settings, teacher, weights, item_logits, logsumexp, share)
    given = [one.detach().requires_grad_() if one is not None else None for one in read]
    with torch.enable_grad():
        item_logits, logsumexp, rest = given  # type: ignore[assignment]
        dro = None
        if rest is not None and problem.sharpness is not None:
            columns = problem.kept if settings.weighs_candidates else 1
            robust_items = items[:, :columns]
            sharpness = problem.sharpness[robust_items]
            dro = robust_terms(item_logits[:, :columns], robust_items, sharpness, rest.squeeze(1))
        terms = VocabularyTerms(item_logits, None if logsumexp is None else logsumexp.squeeze(1), dro)
        base, robust, ranking = losses_of_terms(settings, terms, teacher, weights)
        total = of_base(settings, base, robust)
        if teacher is not None:
            total = total + settings.lam * ranking
        total = share * total
        leaves = [one for one in given if one is not None]
        found = iter(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
    slopes = tuple(item_logits if one is None else next(found) for one in given)
    others = share * torch.stack([base.detach(), robust.detach(), ranking.detach()])
    return torch.cat([total.detach().reshape(1), others]), slopes  # type: ignore[return-value]


def _cross_entropies(
    settings: ObjectiveSettings,
    teacher: TeacherBatch | None,
    weights: Tensor | None,
    item_logits: Tensor,
    logsumexp: Tensor,
    share: float,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """`_small_losses` of cross-entropies alone, whose gradient needs no graph: it is linear in what was read."""
    base = (logsumexp - item_logits[:, :1]).mean()
    ranking = robust = torch.zeros_like(base)
    of_target = settings.base_weight / len(item_logits)
    slopes, of_logsumexp = torch.full_like(item_logits, -of_target), torch.full_like(logsumexp, of_target)
    if teacher is not None and weights is not None:
        shares = weights * share_of_mean(weights, teacher.distilled).unsqueeze(1)
        ranking = (shares * (logsumexp - item_logits[:, 1:])).sum()
        shares = settings.lam * shares
        slopes[:, 1:] = -shares
        of_logsumexp += shares.sum(dim=1, keepdim=True)
    total = settings.base_weight * base + settings.lam * ranking
    losses = share * torch.stack([total, base, robust, ranking])
    return losses, (share * slopes, share * of_logsumexp, of_logsumexp)


def _add_gradients(
    gradients: list[Tensor | None], part: slice, values: Tensor, scale: Tensor | None, rows: Tensor, table: Tensor
) -> None:
    """Add a block's gradient of the logits ``values`` [B, V], times ``scale`` [B, 1], at states, weight and bias.

    Products are of numbers of the table's precision.
    """
    of_states, of_weight, of_bias = gradients
    assert of_states is not None
    assert of_weight is not None
    if of_bias is not None:
        of_bias += values.sum(dim=0) if scale is None else (values.T @ scale).squeeze(1)
    if table.dtype == values.dtype:
        torch.mm(values, table, out=of_states[part])
    else:
        values = values.to(table.dtype)
        of_states[part] = values @ table
    if scale is not None:
        of_states[part].mul_(scale)
        rows = rows * scale
    if table.dtype == rows.dtype:
        of_weight[: len(table)].addmm_(values.T, rows)
    else:
        of_weight[: len(table)] += values.T @ rows.to(table.dtype)
