"""Checks of a selection policy: whoever writes one calls `check_policy` on it and learns what to mend."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from recdistill.distillation.selection import Policy, SelectionSignals, StudentSignals, permutation, scores_of
from recdistill.errors import InputError
from recdistill.registry import POLICIES

SAMPLES, ITEMS, CANDIDATES = 48, 30, 4


def check_policy(policy: str | Policy, options: Any = None) -> None:
    """Check that a selection policy keeps its contract, on made-up signals.

    Args:
        policy: the name of a registered policy, or the function.
        options: instance of the policy's options dataclass; None for its defaults.

    Raises:
        AssertionError: the policy breaks the contract; the message says how, and what to change.
    """
    name = policy if isinstance(policy, str) else getattr(policy, "__name__", repr(policy))
    score = _scorer(name, policy, options)
    for check in (_is_one_finite_score, _keeps_signals, _depends_on_seed_alone, _ignores_ineligible, _ignores_order):
        check(name, score)
    if _can_query(policy):
        _reads_no_teacher(name, score)


Score = Callable[[StudentSignals, str], Tensor]


def example_signals(seed: int = 0, samples: int = SAMPLES) -> SelectionSignals:
    """Made-up signals of N samples, of which some are not eligible."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.log_softmax(2 * torch.randn(samples, ITEMS, generator=generator), dim=1)
    target = torch.randint(ITEMS, (samples,), generator=generator)
    candidates = torch.rand(samples, ITEMS, generator=generator).argsort(dim=1)[:, :CANDIDATES]
    return SelectionSignals(
        student_loss=-log_probs.gather(1, target.unsqueeze(1)).squeeze(1),
        student_entropy=-(log_probs.exp() * log_probs).sum(dim=1),
        target=target,
        item_count=torch.randint(1, 100, (ITEMS,), generator=generator),
        eligible=torch.rand(samples, generator=generator) < 0.7,
        candidates=candidates,
        distance=3 * torch.rand(samples, CANDIDATES, generator=generator).sort(dim=1).values,
        candidate_log_probs=log_probs.gather(1, candidates),
        temperature=0.5,
    )


def _scorer(name: str, policy: str | Policy, options: Any) -> Score:
    """The policy's scores; what it raises, said as a sentence."""

    def score(signals: StudentSignals, when: str) -> Tensor:
        try:
            return scores_of(policy, signals, options)
        except InputError as error:
            raise AssertionError(f"{name}: {error} ({when})") from error
        except Exception as error:
            raise AssertionError(f"{name}: raises {type(error).__name__} {when} ({error})") from error

    return score


def _can_query(policy: str | Policy) -> bool:
    """Whether the policy is registered with ``queries=True``."""
    if isinstance(policy, str):
        return bool(POLICIES.declaration(policy).about.get("queries"))
    return any(POLICIES.get(name) is policy for name in POLICIES.names(queries=True))


def _is_one_finite_score(name: str, score: Score) -> None:
    for samples in (SAMPLES, 1):
        signals = example_signals(samples=samples)
        signals = signals if samples > 1 else replace(signals, eligible=torch.ones(1, dtype=torch.bool))
        found = score(signals, f"on signals of {samples} samples")
        assert bool(torch.isfinite(found[signals.eligible]).all()), (
            f"{name}: gives an infinite score to an eligible sample; return finite scores, the largest are chosen"
        )
    none = replace(example_signals(), eligible=torch.zeros(SAMPLES, dtype=torch.bool))
    score(none, "where no sample is eligible")


def _keeps_signals(name: str, score: Score) -> None:
    signals = example_signals()
    before = {spec.name: getattr(signals, spec.name) for spec in fields(signals)}
    before = {key: value.clone() if isinstance(value, Tensor) else value for key, value in before.items()}
    score(signals, "on example signals")
    for key, value in before.items():
        now = getattr(signals, key)
        same = torch.equal(now, value) if isinstance(value, Tensor) else now == value
        assert same, f"{name}: changes its signal {key} in place, which others read too; work on a copy"


def _depends_on_seed_alone(name: str, score: Score) -> None:
    signals = example_signals()
    state = torch.get_rng_state()
    first = score(signals, "on example signals")
    assert torch.equal(torch.get_rng_state(), state), (
        f"{name}: draws from torch's global random numbers, which a student's training draws from too; "
        "draw by a torch.Generator of signals.seed"
    )
    again = score(signals, "the second time")
    assert torch.equal(first[signals.eligible], again[signals.eligible]), (
        f"{name}: gives other scores for the same signals and seed, so that a run cannot be repeated; "
        "draw by a torch.Generator of signals.seed, and keep nothing between calls"
    )


def _ignores_ineligible(name: str, score: Score) -> None:
    signals = example_signals()
    row, rows = signals.eligible, signals.eligible.unsqueeze(1)
    other = replace(
        signals,
        student_loss=torch.where(row, signals.student_loss, 0.0),
        student_entropy=torch.where(row, signals.student_entropy, 0.0),
        candidates=torch.where(rows, signals.candidates, -1),
        distance=torch.where(rows, signals.distance, torch.nan),
        candidate_log_probs=torch.where(rows, signals.candidate_log_probs, torch.nan),
    )
    expected = score(signals, "on example signals")
    found = score(other, "where rows that are not eligible hold no valid item")
    assert torch.equal(expected[row], found[row]), (
        f"{name}: the scores of eligible samples depend on rows that are not eligible, which may hold anything; "
        "leave them out by signals.eligible"
    )


def _ignores_order(name: str, score: Score) -> None:
    """A policy that does not draw by the seed prefers no sample for its place."""
    signals = example_signals()
    expected = score(signals, "on example signals")
    reseeded = score(replace(signals, seed=signals.seed + 1), "with another seed")
    if not torch.equal(expected[signals.eligible], reseeded[signals.eligible]):
        return
    order = permutation(SAMPLES, 1)
    moved = _reordered(signals, order)
    found = score(moved, "on reordered samples")[moved.eligible]
    assert torch.allclose(found.double(), expected[order][moved.eligible].double(), rtol=1e-5, atol=1e-6), (
        f"{name}: a sample's score depends on its place among the samples; score by the signals alone"
    )


def _reordered(signals: SelectionSignals, order: Tensor) -> SelectionSignals:
    """The same samples in another order."""
    by_item = ("item_count", "seed", "temperature")
    return replace(
        signals,
        **{spec.name: getattr(signals, spec.name)[order] for spec in fields(signals) if spec.name not in by_item},
    )


def _reads_no_teacher(name: str, score: Score) -> None:
    signals = example_signals()
    alone = StudentSignals(**{spec.name: getattr(signals, spec.name) for spec in fields(StudentSignals)})
    expected = score(signals, "on example signals")
    found = score(alone, "before a teacher has scored anything; register it with queries=False if it needs one")
    assert torch.equal(expected[signals.eligible], found[signals.eligible]), (
        f"{name}: is registered with queries=True, but its scores change with the teacher's answers; "
        "read no signal of SelectionSignals alone, or register it with queries=False"
    )
