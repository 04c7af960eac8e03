"""Selection policies: what they see, and how they choose the samples that are distilled, or that a teacher scores.

A policy is a function from signals to scores [N], registered by name; the samples with the highest scores are chosen::

    @POLICIES.register("hard_for_both", queries=False)
    def hard_for_both(signals: SelectionSignals) -> Tensor:
        return signals.student_loss + signals.distance[:, 0]

A policy that reads nothing of the teacher can also spend a query budget: it says which samples the teacher scores
first. One with options of its own gets them as a second argument::

    @POLICIES.register("long_tail_errors", options=LongTailOptions, queries=True)
    def long_tail_errors(signals: StudentSignals, options: LongTailOptions) -> Tensor:
        return signals.student_loss / (options.offset + signals.item_count[signals.target])
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.distillation.exclusion import Pairs, logits_without, without_kept
from recdistill.errors import InputError
from recdistill.registry import POLICIES, Declaration


@dataclass(frozen=True, kw_only=True)
class StudentSignals:
    """What can be known of the N training samples before a teacher has scored any.

    Attributes:
        student_loss: the student's cross-entropy on the target, nats [N].
        student_entropy: the entropy of the student's distribution over all items, nats [N].
        target: item ids [N].
        item_count: how often each item is a training target [V].
        eligible: bool [N], the samples to choose among.
        seed: of policies that draw, and of the order of equal scores.

    Raises:
        InputError: shapes do not fit.
    """

    student_loss: Tensor
    student_entropy: Tensor
    target: Tensor
    item_count: Tensor
    eligible: Tensor
    seed: int = 0

    def __post_init__(self) -> None:
        samples = len(self.target)
        for name in ("student_loss", "student_entropy", "eligible", "target"):
            if getattr(self, name).shape != (samples,):
                found = list(getattr(self, name).shape)
                raise InputError(f"selection signal {name} is {found}; give one value a sample, [{samples}]")
        if self.eligible.dtype != torch.bool:
            raise InputError(f"selection signal eligible is {self.eligible.dtype}; give bool")


@dataclass(frozen=True, kw_only=True)
class SelectionSignals(StudentSignals):
    """The same with the teacher's answers; rows that are not eligible may hold anything.

    Attributes:
        candidates: the teacher's item ids [N, K], best first.
        distance: the teacher's distances to its candidates [N, K], small is sure.
        candidate_log_probs: the student's log-probabilities of the candidates [N, K].
        eligible: bool [N], the samples that the teacher covers.
        temperature: of the distributions ``softmax(-distance / T)`` and ``softmax(candidate_log_probs / T)``.

    Raises:
        InputError: shapes do not fit, or the temperature is not above 0.
    """

    candidates: Tensor
    distance: Tensor
    candidate_log_probs: Tensor
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (len(self.target), self.candidates.shape[-1])
        for name in ("candidates", "distance", "candidate_log_probs"):
            if getattr(self, name).shape != expected:
                found = list(getattr(self, name).shape)
                raise InputError(f"selection signal {name} is {found}; give {list(expected)}")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; give a number above 0")


#: From signals, and the policy's own options where it has some, to scores [N].
Policy = Callable[..., Tensor]


def select(
    policy: str | Policy, signals: SelectionSignals, fraction: float, seed: int | None = None, options: Any = None
) -> Tensor:
    """The ``round(fraction * eligible)`` eligible samples with the highest scores: those that are distilled.

    At least one, where the fraction is above 0 and a sample is eligible.

    Args:
        policy: a name in `POLICIES`, or a policy.
        signals: of all N samples.
        fraction: in [0, 1], of the eligible samples.
        seed: equal scores are ordered at random by it, so that no user is preferred for coming first; None
            for the signals' own.
        options: instance of the policy's options dataclass; None for its defaults.

    Returns:
        bool [N], on the signals' device; the same for the same arguments.

    Raises:
        InputError: unknown policy, a fraction out of range, or scores that are not one number a sample.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction is {fraction}; give a number from 0 to 1")
    signals = signals if seed is None else replace(signals, seed=seed)
    best = _best_first(_called(policy, signals, options), signals)
    mask = torch.zeros_like(signals.eligible)
    count = max(1, round(fraction * len(best))) if fraction else 0
    mask[best[:count]] = True
    return mask


def query(policy: str | Policy, signals: StudentSignals, count: int, options: Any = None) -> Tensor:
    """The samples that a teacher is asked to score under a budget, the highest score first.

    Args:
        policy: the name of a policy registered with ``queries=True``, or a policy that reads nothing of the teacher.
        signals: of all N samples; the eligible ones may be asked for.
        count: the budget, at least 0.
        options: instance of the policy's options dataclass; None for its defaults.

    Returns:
        int64 [min(count, eligible)], indices of samples; a larger budget goes on where a smaller one ends.

    Raises:
        InputError: unknown policy, one that cannot spend a budget, or a negative count.
    """
    known = _declaration_of(policy)
    if known is not None and not known.about.get("queries"):
        raise InputError(
            f"selection policy {known.name!r} cannot spend a query budget; "
            f"choose one of {', '.join(POLICIES.names(queries=True))}"
        )
    if count < 0:
        raise InputError(f"count is {count}; give a number of samples of at least 0")
    return _best_first(_called(policy, signals, options), signals)[:count]


def scores_of(policy: str | Policy, signals: StudentSignals, options: Any = None) -> Tensor:
    """The scores [N] that a policy gives; those of samples that are not eligible mean nothing.

    Args:
        policy, options: as of `select`.
        signals: of all N samples.

    Raises:
        InputError: unknown policy, or scores that are not one number a sample.
    """
    function = POLICIES.get(policy) if isinstance(policy, str) else policy
    known = _declaration_of(policy)
    kind = known.options if known is not None else None
    if options is None and kind is not None:
        options = kind()
    scores = function(signals) if options is None else function(signals, options)
    samples = len(signals.target)
    if not isinstance(scores, Tensor) or scores.shape != (samples,):
        found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the selection policy gave scores {found}; give one a sample, [{samples}]")
    if bool(scores[signals.eligible].isnan().any()):
        raise InputError("the selection policy gave a score that is not a number; check its signals")
    return scores


def _called(policy: str | Policy, signals: StudentSignals, options: Any) -> Tensor:
    """`scores_of`; a user's policy gets copies, as others read the signals, and what it raises is said in one line."""
    known = _declaration_of(policy)
    if known is not None and not known.is_ours:
        values = {spec.name: getattr(signals, spec.name) for spec in fields(signals)}
        copies: dict[str, Any] = {key: one.clone() for key, one in values.items() if isinstance(one, Tensor)}
        signals = replace(signals, **copies)
    with POLICIES.calling(policy):
        return scores_of(policy, signals, options)


def _declaration_of(policy: str | Policy) -> Declaration | None:
    """What is registered of a policy, once its file is imported; None where it is not registered."""
    if isinstance(policy, str):
        POLICIES.get(policy)
        return POLICIES.declaration(policy)
    try:
        return POLICIES.declaration(POLICIES.name_of(policy))
    except KeyError:
        return None


def overlap(previous_mask: Tensor, mask: Tensor) -> float:
    """The share of the samples selected now that were selected before, in [0, 1]; 1 where none is selected.

    Raises:
        InputError: the masks [N] do not fit.
    """
    if previous_mask.shape != mask.shape:
        raise InputError(
            f"selections of {list(previous_mask.shape)} and {list(mask.shape)} samples; compare equal sets"
        )
    selected = int(mask.sum())
    return int((previous_mask & mask).sum()) / selected if selected else 1.0


def student_signals(
    logits: Tensor, target: Tensor, candidates: Tensor, excluded: Pairs | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [S], entropy [S] and log-probabilities of the candidates [S, K], without gradient.

    Args:
        logits: the student's [S, V].
        target: item ids [S].
        candidates: the teacher's item ids [S, K]; [S, 0] before there are any.
        excluded: items without a probability, see `exclusion`; a row's target and candidates have theirs.
    """
    if excluded is not None:
        excluded = without_kept(excluded, torch.column_stack([target, candidates]))
    log_probs = torch.log_softmax(logits_without(logits.detach(), excluded), dim=1)
    loss = -log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1)
    return loss, entropy, log_probs.gather(1, candidates)


def _best_first(scores: Tensor, signals: StudentSignals) -> Tensor:
    """The eligible samples by descending score, int64 [eligible]; equal ones in an order drawn by the seed."""
    eligible = signals.eligible.nonzero().squeeze(1)
    shuffled = eligible[permutation(len(eligible), signals.seed).to(eligible.device)]
    return shuffled[torch.argsort(scores[shuffled], descending=True, stable=True)]


def seed_of_epoch(seed: int, epoch: int) -> int:
    """The seed of an epoch's selection, by both numbers: a sum would be that of the next seed one epoch before."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def permutation(size: int, seed: int) -> Tensor:
    """A permutation of 0..size-1 by the seed, drawn on the CPU so that devices agree."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
