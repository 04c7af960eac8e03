"""Which samples are distilled: policies that score samples, and the selection of the best of them.

A policy is a function of the signals, registered by name::

    @register("hard_for_both")
    def hard_for_both(signals: SelectionSignals) -> Tensor:
        return signals.student_loss + signals.distance[:, 0]
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.errors import InputError


@dataclass(frozen=True)
class SelectionSignals:
    """What policies see of the N training samples; rows that are not eligible may hold anything.

    Attributes:
        student_loss: the student's cross-entropy on the target, nats [N].
        student_entropy: the entropy of the student's distribution over all items, nats [N].
        candidate_log_probs: the student's log-probabilities of the teacher's candidates [N, K].
        distance: the teacher's distances to its candidates [N, K], small is sure.
        candidates: the teacher's item ids [N, K], best first.
        target: item ids [N].
        item_count: how often each item is a training target [V].
        eligible: bool [N], the samples that the teacher covers.
        temperature: of the teacher's distribution ``softmax(-distance / temperature)``.
        seed: of policies that draw, and of the order of equal scores.

    Raises:
        InputError: shapes do not fit, or the temperature is not above 0.
    """

    student_loss: Tensor
    student_entropy: Tensor
    candidate_log_probs: Tensor
    distance: Tensor
    candidates: Tensor
    target: Tensor
    item_count: Tensor
    eligible: Tensor
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        samples = len(self.target)
        for name in ("student_loss", "student_entropy", "eligible", "target"):
            if getattr(self, name).shape != (samples,):
                found = list(getattr(self, name).shape)
                raise InputError(f"selection signal {name} is {found}; give one value a sample, [{samples}]")
        expected = (samples, self.candidates.shape[-1])
        for name in ("candidates", "distance", "candidate_log_probs"):
            if getattr(self, name).shape != expected:
                found = list(getattr(self, name).shape)
                raise InputError(f"selection signal {name} is {found}; give {list(expected)}")
        if self.eligible.dtype != torch.bool:
            raise InputError(f"selection signal eligible is {self.eligible.dtype}; give bool")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; give a number above 0")


Policy = Callable[[SelectionSignals], Tensor]
POLICIES: dict[str, Policy] = {}


def register(name: str) -> Callable[[Policy], Policy]:
    """Add a policy to `POLICIES`: a function of the signals to scores [N], the highest are selected.

    Raises:
        InputError: the name is taken.
    """

    def add(policy: Policy) -> Policy:
        if name in POLICIES:
            raise InputError(f"a selection policy named {name!r} exists; give yours another name")
        POLICIES[name] = policy
        return policy

    return add


def select(policy: str | Policy, signals: SelectionSignals, fraction: float, seed: int | None = None) -> Tensor:
    """The ``round(fraction * eligible)`` eligible samples with the highest scores.

    Args:
        policy: a name of `POLICIES`, or a policy.
        signals: of all N samples.
        fraction: in [0, 1], of the eligible samples.
        seed: equal scores are ordered at random by it, so that no user is preferred for coming first; None
            for the signals' own.

    Returns:
        bool [N], on the signals' device; the same for the same arguments.

    Raises:
        InputError: unknown policy, a fraction out of range, or scores that are not one number a sample.
    """
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise InputError(f"unknown selection policy {policy!r}; choose one of {', '.join(POLICIES)}")
        policy = POLICIES[policy]
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction is {fraction}; give a number from 0 to 1")
    samples = len(signals.target)
    seed = signals.seed if seed is None else seed
    scores = policy(replace(signals, seed=seed))
    if scores.shape != (samples,):
        raise InputError(f"the selection policy gave scores {list(scores.shape)}; give one a sample, [{samples}]")
    eligible = signals.eligible.nonzero().squeeze(1)
    shuffled = eligible[_permutation(len(eligible), seed).to(eligible.device)]
    if bool(scores[shuffled].isnan().any()):
        raise InputError("the selection policy gave a score that is not a number; check its signals")
    order = torch.argsort(scores[shuffled], descending=True, stable=True)
    mask = torch.zeros_like(signals.eligible)
    mask[shuffled[order[: round(fraction * len(eligible))]]] = True
    return mask


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


def student_signals(logits: Tensor, target: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [S], entropy [S] and log-probabilities of the candidates [S, K], without gradient.

    Args:
        logits: the student's [S, V].
        target: item ids [S].
        candidates: the teacher's item ids [S, K].
    """
    log_probs = torch.log_softmax(logits.detach(), dim=1)
    loss = -log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1)
    return loss, entropy, log_probs.gather(1, candidates)


@register("all")
def all_samples(signals: SelectionSignals) -> Tensor:
    """Every eligible sample alike; a fraction below 1 draws among them."""
    return torch.zeros_like(signals.student_loss)


@register("random")
def random_samples(signals: SelectionSignals) -> Tensor:
    """Samples drawn by the seed."""
    order = _permutation(len(signals.target), signals.seed)
    return order.to(signals.student_loss)


@register("kl_divergence")
def kl_divergence(signals: SelectionSignals) -> Tensor:
    """Where the student differs most from the teacher: KL(teacher || student) over the K candidates."""
    teacher = torch.log_softmax(-signals.distance / signals.temperature, dim=1)
    student = torch.log_softmax(signals.candidate_log_probs, dim=1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


@register("ground_truth_error")
def ground_truth_error(signals: SelectionSignals) -> Tensor:
    """Where the student is most wrong: its cross-entropy on the target."""
    return signals.student_loss


@register("uncertainty")
def uncertainty(signals: SelectionSignals) -> Tensor:
    """Where the student is least sure: its entropy over all items."""
    return signals.student_entropy


@register("teacher_confidence")
def teacher_confidence(signals: SelectionSignals) -> Tensor:
    """Where the teacher is most sure: the smallest distance among its candidates."""
    return -signals.distance.amin(dim=1)


@register("popularity_inverse")
def popularity_inverse(signals: SelectionSignals) -> Tensor:
    """The rarest targets first."""
    return -signals.item_count[signals.target].to(signals.student_loss)


@register("coverage")
def coverage(signals: SelectionSignals) -> Tensor:
    """Where the teacher recommends what it rarely does: the mean of 1 / a candidate's recommendations."""
    # Ids of samples that are not covered may be no items at all.
    candidates = torch.where(signals.eligible.unsqueeze(1), signals.candidates, 0)
    recommended = torch.zeros(len(signals.item_count), dtype=torch.int64, device=candidates.device)
    counted = signals.eligible.unsqueeze(1).expand_as(candidates).long()
    recommended.scatter_add_(0, candidates.flatten(), counted.flatten())
    return (1.0 / recommended.clamp(min=1)[candidates].to(signals.student_loss)).mean(dim=1)


def _permutation(size: int, seed: int) -> Tensor:
    """A permutation of 0..size-1 by the seed, drawn on the CPU so that devices agree."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
