"""Students of several seeds trained as one batched model: for a GPU, which the small steps of one leave idle.

Each seed stays an ordinary training, with batches, optimizer, validation and checkpoint of its own, in a thread of its
own. One thread works at a time, in the order of the seeds: a thread goes on until its step needs the encoder, or its
training ends. Then the thread that called encodes the batches of all at once, by `torch.func.vmap` over parameters that
are rows of common tensors, and computes each seed's losses as for one alone. Random numbers are each seed's own; the
masks of the common encoder's dropout are drawn from those of the first seed that is still trained.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recdistill.config.student import StudentConfig
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.settings import SAMPLED
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.step import FullStep, Losses, Ready
from recdistill.students.student import Student, scores_by_layer
from recdistill.training.device import device_of, mixed_precision
from recdistill.training.distributed import join
from recdistill.training.fit import random_states, restore_random_states

Result = TypeVar("Result")
#: What the key of a training in company has beside its options.
COMPANY = "seeds trained together"


def check_together(config: StudentConfig) -> None:
    """Raise InputError, before any work, where students of several seeds cannot be one batched model."""
    start = "final_together=true"
    if config.base_loss in SAMPLED:
        raise InputError(f"{start}: base_loss={config.base_loss} has sparse gradients, which are not batched; use ce")
    if not batches_seeds(STUDENTS.get(config.student)):
        known = [name for name in STUDENTS.names(gradient=True) if batches_seeds(STUDENTS.get(name))]
        raise InputError(f"{start}: student={config.student} cannot be batched; use one of {', '.join(known)}")
    if join(device_of(config)).count > 1:
        raise InputError(f"{start}: trains in one process; start it without accelerate launch or torchrun")


def batches_seeds(kind: type) -> bool:
    """Whether a class says of itself that `torch.func.vmap` takes its forward; a subclass says so again."""
    return issubclass(kind, Student) and bool(vars(kind).get("batches_seeds")) and scores_by_layer(kind)


class Member(Generic[Result]):
    """A training among those that train together.

    Args:
        seeds: of all.
        back: is set when it gives its turn back.
        train: what its thread does in its turns.
    """

    def __init__(
        self, seeds: Sequence[int], back: threading.Event, train: Callable[["Member[Result]"], Result]
    ) -> None:
        self.seeds, self.back, self.train = seeds, back, train
        self.wake = threading.Event()
        # A daemon, so that a second interrupt ends the process whatever waits.
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.has_turn = self.stopped = self.ended = False
        self.handed: tuple[FullStep, Ready] | None = None
        self.found: Losses = {}
        self.error: BaseException | None = None
        self.result: Result | None = None
        self.random: dict[str, Tensor] = {}

    @property
    def contents(self) -> dict[str, str]:
        """What the run's key has beside its options: all seeds of the group, as masks of dropout are others alone.

        A seed whose run is found is not trained again: the others, whose keys stay, train without it, and their masks
        are then others, as they are after a kill.
        """
        return {COMPANY: ", ".join(map(str, self.seeds))}

    def losses(self, step: FullStep, ready: Ready) -> Losses:
        """The losses of its batch, when all that are still trained have handed in theirs; called in its thread.

        Raises what their computation raises for this member, and KeyboardInterrupt where the trainings are stopped.
        """
        devices = {step.device}
        self.handed, self.random = (step, ready), random_states(devices)
        self._give_turn_back()
        self._await_turn()
        self.handed = None
        if self.error is not None:
            raise self.error
        restore_random_states(devices, self.random)
        # Not kept: it holds the gradients.
        found, self.found = self.found, {}
        return found

    def go_on(self) -> None:
        """Have its thread work until it hands in a batch or ends; called in the thread that leads."""
        self.has_turn = True
        self.wake.set()
        # It may have ended since the last look at it.
        while self.has_turn and not self.ended:
            self.back.wait()
            self.back.clear()

    def stop(self) -> None:
        """End its training where it waits, or waits next, as an interrupt does."""
        self.stopped = True
        while self.thread.is_alive() and not self.ended:
            self.go_on()

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """While it lasts, random numbers are this member's."""
        devices = {self.at_hand[0].device}
        restore_random_states(devices, self.random)
        yield
        self.random = random_states(devices)

    @property
    def at_hand(self) -> tuple[FullStep, Ready]:
        """What it has handed in."""
        assert self.handed is not None
        return self.handed

    def _work(self) -> None:
        try:
            self._await_turn()
            self.result = self.train(self)
        except BaseException as error:
            self.error = error
        self.handed, self.ended = None, True
        self._give_turn_back()

    def _await_turn(self) -> None:
        while not self.has_turn:
            self.wake.wait()
            self.wake.clear()
        if self.stopped:
            raise KeyboardInterrupt

    def _give_turn_back(self) -> None:
        self.has_turn = False
        self.back.set()


def train_together(seeds: Sequence[int], train: Callable[[int, Member[Result]], Result]) -> list[Result]:
    """What ``train(position, member)`` gives for each seed, which hands ``member`` on to `fit_recommender`.

    What one raises is raised at once, and an interrupt of this thread, too: the others are stopped, as by an interrupt.
    """
    back = threading.Event()
    members: list[Member[Result]] = [Member(seeds, back, partial(train, place)) for place in range(len(seeds))]
    waiting, stacked = list(members), Stacked([])
    try:
        for member in members:
            member.thread.start()
        while waiting:
            for member in waiting:
                member.go_on()
                if member.error is not None:
                    raise member.error
            waiting = [member for member in waiting if not member.ended]
            if waiting:
                stacked = stacked if stacked.members == waiting else Stacked(waiting)
                failed = stacked.compute()
                # It raises in its own thread, whose run says why.
                waiting = waiting if failed is None else [failed]
    except BaseException:
        # First the one that works.
        for member in sorted(members, key=lambda one: not one.has_turn):
            member.stop()
        raise
    return [member.result for member in members]  # type: ignore[misc]


class Encoder(nn.Module):
    """A student's states at all that its windows can be asked for, and the layer that scores items, as tensors."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, history: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """States [W * L, D] at all columns, of a student that is not causal [W, D]; the layer's weight, and its bias.

        Args:
            history: windows of item ids [W, L].
            length: real length of each, at least 1 [W].
        """
        windows, width = history.shape
        row = torch.arange(windows, device=history.device)
        place = (row, length - 1)
        if self.student.causal:
            place = (row.repeat_interleave(width), torch.arange(width, device=history.device).repeat(windows))
        # How many distinct items a batch has may differ from seed to seed: rows are read from the whole table.
        with self.student.items.one_table():
            states, output = self.student.encoded(history, length, *place)
        return (states, output.weight) if output.bias is None else (states, output.weight, output.bias)


class Stacked:
    """Members whose students' parameters are rows of common leaves, until one of them leaves.

    Args:
        members: that have handed in a batch.

    Attributes:
        leaves: of each parameter, by its name in `Encoder`, the members' [K, ...].
        buffers: likewise of buffers that are not the same in all, as a teacher's vectors dealt by the seed.
    """

    def __init__(self, members: Sequence[Member[Any]]) -> None:
        self.members = list(members)
        self.encoders = [Encoder(member.at_hand[0].model) for member in members]
        self.leaves = stacked_parameters(self.encoders) if members else {}
        self.buffers = differing_buffers(self.encoders) if members else {}

    def compute(self) -> Member[Any] | None:
        """Find the losses of each member's batch. Returns the member for which that raised its ``error``, or None."""
        current, losses = self.members[0], []
        try:
            with current.own_random():
                states, *layers = self.encoded()
            for current, own, *layer in zip(self.members, states, *layers, strict=True):
                step, ready = current.at_hand
                output = OutputLayer(layer[0], layer[1] if layer[1:] else None, step.model.num_items)
                with current.own_random():
                    losses.append(step.losses(ready, own, output))
            self.give(losses)
        except Exception as error:
            current.error = error
            return current
        return None

    def encoded(self) -> tuple[Sequence[Tensor], ...]:
        """Of each member the states of its samples [S, D], and the weight and bias of its output layer."""
        step, batches = self.members[0].at_hand[0], [member.at_hand[1].batch for member in self.members]
        windows = max(len(batch.history) for batch in batches)
        width = max(batch.history.shape[1] for batch in batches)
        missing = [(0, width - batch.history.shape[1], 0, windows - len(batch.history)) for batch in batches]
        histories = [
            F.pad(batch.history, pad, value=step.data.padding_id) for batch, pad in zip(batches, missing, strict=True)
        ]
        # Nobody asks for what is added, but it may not be NaN, as a mean over no items.
        lengths = [F.pad(batch.length, pad[2:], value=1) for batch, pad in zip(batches, missing, strict=True)]
        windows_of_all, tensors = (torch.stack(histories), torch.stack(lengths)), self.leaves | self.buffers
        with mixed_precision(step.config.bf16, step.device):
            states, *layer = encode(self.encoders[0], tensors, *windows_of_all)
        places = [batch.row * width + batch.column if step.model.causal else batch.row for batch in batches]
        own = [states_of.index_select(0, place) for states_of, place in zip(states.unbind(), places, strict=True)]
        # By unbind, whose gradient is one tensor for all.
        return own, *(one.unbind() for one in layer)

    def give(self, losses: list[Losses]) -> None:
        """Give the members their losses; the gradients are computed here, for all at once."""
        leaves = [leaf for leaf in self.leaves.values() if leaf.requires_grad]
        extra = [trained(member.at_hand[0].objective) for member in self.members]
        totals = [one["total"] for one in losses]
        found = torch.autograd.grad(totals, [*leaves, *chain.from_iterable(extra)], allow_unused=True)
        of_rows, of_extra = found[: len(leaves)], iter(found[len(leaves) :])
        for row, (member, own) in enumerate(zip(self.members, extra, strict=True)):
            gradients = [None if one is None else one[row] for one in of_rows] + [next(of_extra) for _ in own]
            parameters = [*trained(member.at_hand[0].model), *own]
            total = _Known.apply(totals[row].detach(), gradients, *parameters)
            member.found = losses[row] | {"total": total}


def encode(encoder: nn.Module, leaves: dict[str, Tensor], history: Tensor, length: Tensor) -> tuple[Tensor, ...]:
    """What an `Encoder` gives with each of K students' tensors, for windows [K, W, L] and lengths [K, W]."""

    def one(*given: Any) -> Any:
        return torch.func.functional_call(encoder, given[0], given[1:])

    found: tuple[Tensor, ...] = torch.func.vmap(one, randomness="different")(leaves, history, length)
    return found


def stacked_parameters(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The models' parameters by name, as leaves [K, ...]; a model's own are from now on rows of them."""
    named, leaves = [dict(model.named_parameters()) for model in models], {}
    for name, first in named[0].items():
        rows = torch.stack([own[name].detach() for own in named])
        for row, own in enumerate(named):
            own[name].data = rows[row]
        leaves[name] = rows.requires_grad_(first.requires_grad)
    return leaves


def differing_buffers(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The models' buffers by name, stacked [K, ...], where they are not the same in all."""
    named = [dict(model.named_buffers()) for model in models]
    return {
        name: torch.stack([own[name] for own in named])
        for name, first in named[0].items()
        if not all(torch.equal(first, own[name]) for own in named[1:])
    }


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


class _Known(torch.autograd.Function):
    """A loss whose gradients at parameters are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(None if one is None else one * of_loss for one in ctx.gradients))
