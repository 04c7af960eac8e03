"""Checks of a loss term: whoever writes one calls `check_loss_term` on it and learns what to mend."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from recdistill.config.base import option_table
from recdistill.config.distill import DistillConfig
from recdistill.distillation.loss_terms import LossTerm, TermContext, build_term, checked_loss
from recdistill.distillation.objective import Objective
from recdistill.distillation.selection import permutation
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS

SAMPLES, ITEMS, CANDIDATES, STATE, TEACHER_STATE = 16, 40, 5, 6, 9
LARGEST = 30.0


@dataclass(frozen=True)
class Example:
    """A made-up batch: what a loss term is called with."""

    logits: Tensor
    target: Tensor
    states: Tensor
    teacher: TeacherBatch


def check_loss_term(term: str | type[nn.Module] | LossTerm, options: Any = None) -> None:
    """Check that a loss term keeps its contract, on made-up batches.

    Args:
        term: the name of a registered term, or its function or module class.
        options: instance of the term's options dataclass; None for its defaults.

    Raises:
        AssertionError: the term breaks the contract; the message says how, and what to change.
    """
    name = term if isinstance(term, str) else getattr(term, "__name__", repr(term))
    built = _built(name, term, options)
    if name in LOSS_TERMS:
        _has_a_weight_of_its_own()
    for check in (
        _is_a_finite_scalar,
        _has_a_finite_gradient,
        _sends_no_gradient_to_the_teacher,
        _keeps_its_inputs,
        _reads_distilled_rows_alone,
        _ignores_order,
        _weighs_nothing_at_weight_zero,
    ):
        check(name, built)
    if isinstance(term, str) and LOSS_TERMS.declaration(term).about.get("mean_of_samples"):
        _is_a_mean_of_samples(name, built)


def example_batch(seed: int = 0, samples: int = SAMPLES, scale: float = 2.0) -> Example:
    """A made-up batch of logits of about the size ``scale``, in which some samples are distilled."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, ITEMS, generator=generator).clamp(-1, 1)
    distilled = torch.rand(samples, generator=generator) < 0.6
    distilled[0] = True
    return Example(
        logits=logits,
        target=torch.randint(ITEMS, (samples,), generator=generator),
        states=torch.randn(samples, STATE, generator=generator),
        teacher=TeacherBatch(
            candidates=torch.rand(samples, ITEMS, generator=generator).argsort(dim=1)[:, :CANDIDATES],
            distance=3 * torch.rand(samples, CANDIDATES, generator=generator).sort(dim=1).values,
            distilled=distilled,
            sequence_embedding=torch.randn(samples, TEACHER_STATE, generator=generator),
        ),
    )


def _built(name: str, term: str | type[nn.Module] | LossTerm, options: Any) -> nn.Module:
    """The term for the example's sizes, in eval mode, so that dropout draws nothing."""
    try:
        return build_term(term, options, TermContext(ITEMS, STATE, TEACHER_STATE)).eval()
    except InputError as error:
        raise AssertionError(str(error)) from error
    except Exception as error:
        raise AssertionError(
            f"{name}: cannot be built as cls(options, context) ({type(error).__name__}: {error})"
        ) from error


def _has_a_weight_of_its_own() -> None:
    try:
        option_table(DistillConfig)
    except InputError as error:
        raise AssertionError(str(error)) from error


def _loss(name: str, term: nn.Module, batch: Example, when: str) -> Tensor:
    """The term's loss of a batch; what is wrong with it, said as a sentence."""
    try:
        return checked_loss(name, term(batch.logits, batch.target, batch.states, batch.teacher))
    except InputError as error:
        raise AssertionError(f"{error} ({when})") from error
    except Exception as error:
        raise AssertionError(f"{name}: raises {type(error).__name__} {when} ({error})") from error


def _examples() -> Iterator[tuple[str, Example]]:
    """Batches that a training may meet, each with the words for it."""
    yield "on an ordinary batch", example_batch()
    yield f"on logits up to {LARGEST:g}", example_batch(scale=LARGEST)
    yield "on a batch of one sample", example_batch(samples=1)
    batch = example_batch()
    nothing = replace(batch.teacher, distilled=torch.zeros_like(batch.teacher.distilled))
    yield "where no sample is distilled", replace(batch, teacher=nothing)


def _is_a_finite_scalar(name: str, term: nn.Module) -> None:
    for when, batch in _examples():
        _loss(name, term, batch, when)


def _leaves(term: nn.Module, batch: Example) -> tuple[Example, dict[str, Tensor]]:
    """The batch with logits and states that collect gradients, and all that the term's gradient may reach."""
    batch = replace(batch, logits=batch.logits.clone().requires_grad_(), states=batch.states.clone().requires_grad_())
    return batch, {"logits": batch.logits, "states": batch.states} | dict(term.named_parameters())


def _gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient at each leaf that the loss reaches."""
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True) if loss.requires_grad else ()
    return {name: one for name, one in zip(leaves, found, strict=False) if one is not None}


def _has_a_finite_gradient(name: str, term: nn.Module) -> None:
    for when, batch in _examples():
        batch, leaves = _leaves(term, batch)
        found = _gradients(_loss(name, term, batch, when), leaves)
        for leaf, gradient in found.items():
            assert bool(torch.isfinite(gradient).all()), (
                f"{name}: its gradient at the {leaf} is not finite {when}; use log_softmax, logsumexp or softplus "
                "in place of exp and log"
            )
        if when == "on an ordinary batch":
            assert any(bool(found[leaf].any()) for leaf in ("logits", "states") if leaf in found), (
                f"{name}: has no gradient at the student's logits or states, so the student learns nothing from it; "
                "compute it from them without detach, argmax or comparisons"
            )


def _sends_no_gradient_to_the_teacher(name: str, term: nn.Module) -> None:
    batch = example_batch()
    assert batch.teacher.sequence_embedding is not None
    teacher = replace(
        batch.teacher,
        distance=batch.teacher.distance.clone().requires_grad_(),
        sequence_embedding=batch.teacher.sequence_embedding.clone().requires_grad_(),
    )
    batch, _ = _leaves(term, replace(batch, teacher=teacher))
    loss = _loss(name, term, batch, "on an ordinary batch")
    of_teacher = {"distance": teacher.distance, "sequence_embedding": batch.teacher.sequence_embedding}
    for part in _gradients(loss, {key: value for key, value in of_teacher.items() if value is not None}):
        raise AssertionError(f"{name}: sends a gradient to the teacher's {part}, which is not trained; detach it")


def _keeps_its_inputs(name: str, term: nn.Module) -> None:
    batch = example_batch()
    given = _tensors(batch)
    before = {key: value.clone() for key, value in given.items()}
    _loss(name, term, batch, "on an ordinary batch")
    for key, value in before.items():
        assert torch.equal(given[key], value), f"{name}: changes {key} in place, which others read too; use a copy"


def _tensors(batch: Example) -> dict[str, Tensor]:
    """All tensors of a batch by name."""
    found = {key: getattr(batch, key) for key in ("logits", "target", "states")}
    teacher = {f"teacher.{spec.name}": getattr(batch.teacher, spec.name) for spec in fields(batch.teacher)}
    return found | {key: value for key, value in teacher.items() if value is not None}


def _reads_distilled_rows_alone(name: str, term: nn.Module) -> None:
    batch = example_batch()
    rows, states = batch.teacher.distilled.unsqueeze(1), batch.teacher.sequence_embedding
    assert states is not None
    teacher = replace(
        batch.teacher,
        candidates=torch.where(rows, batch.teacher.candidates, -1),
        distance=torch.where(rows, batch.teacher.distance, torch.nan),
        sequence_embedding=torch.where(rows, states, torch.nan),
    )
    when = "where rows that are not distilled hold no valid item"
    found = _loss(name, term, replace(batch, teacher=teacher), when)
    assert torch.equal(found, _loss(name, term, batch, "on an ordinary batch")), (
        f"{name}: depends on the teacher's rows that are not distilled, which may hold anything; "
        "take the rows of teacher.distilled first"
    )


def _ignores_order(name: str, term: nn.Module) -> None:
    batch = example_batch()
    moved = _rows(batch, permutation(SAMPLES, 1))
    expected = _loss(name, term, batch, "on an ordinary batch")
    found = _loss(name, term, moved, "on reordered samples")
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6), (
        f"{name}: is {found.item():g} and {expected.item():g} for the same samples in another order; "
        "a loss is a mean over samples, and draws no random numbers in eval mode"
    )


def _rows(batch: Example, index: Tensor) -> Example:
    """The samples of a batch at ``index``, in this order."""
    assert batch.teacher.sequence_embedding is not None
    teacher = TeacherBatch(
        batch.teacher.candidates[index],
        batch.teacher.distance[index],
        batch.teacher.distilled[index],
        batch.teacher.sequence_embedding[index],
    )
    return Example(batch.logits[index], batch.target[index], batch.states[index], teacher)


def _is_a_mean_of_samples(name: str, term: nn.Module) -> None:
    batch = example_batch()
    whole = _loss(name, term, batch, "on an ordinary batch")
    parts = torch.arange(SAMPLES).split([SAMPLES - 5, 5])
    found = sum(len(part) / SAMPLES * _loss(name, term, _rows(batch, part), "on a part of a batch") for part in parts)
    assert torch.allclose(torch.as_tensor(found), whole, rtol=1e-4, atol=1e-6), (
        f"{name}: is registered with mean_of_samples=True, but the means of a batch's parts are not that of the batch; "
        "divide a sum over samples by the number of all samples, or leave mean_of_samples out"
    )


def _weighs_nothing_at_weight_zero(name: str, term: nn.Module) -> None:
    without = Objective(ObjectiveSettings(lam=0.5), torch.ones(ITEMS))
    weightless = Objective(ObjectiveSettings(lam=0.5), torch.ones(ITEMS), {"checked": term}, {"checked": 0.0})
    found = []
    for objective in (without, weightless):
        batch, leaves = _leaves(nn.Module(), example_batch())
        total = objective(batch.logits, batch.target, batch.states, batch.teacher)["total"]
        found.append((total.detach(), _gradients(total, leaves)["logits"]))
    same = torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert same, (
        f"{name}: changes the objective at weight 0; return the loss alone, and change nothing that others read"
    )
