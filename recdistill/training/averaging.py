"""Averaged weights: an exponential moving average (EMA) of what an optimizer changes, step by step.

A student is validated and kept with the averages: single steps scatter around a point that the average is near
(Polyak and Juditsky, 1992; Izmailov et al., 2018), so that one lucky epoch says less.

Of a table that a step changes in some rows alone, the averages of the other rows wait: before a row changes, and when
the averages are asked for, all steps that it did not change in are made good at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

#: Numbers of a table that are copied at once where it is changed in place: 8 MiB of float32.
AT_ONCE = 1 << 21


def warmed_decay(decay: float, step: int) -> float:
    """The decay at a step: ``min(decay, (1 + step) / (10 + step))``, so that the start is soon forgotten.

    Args:
        decay: share of the average that a step keeps, late in training.
        step: steps done before this one.
    """
    return min(decay, (1 + step) / (10 + step))


@dataclass(frozen=True, eq=False)
class WaitingRows:
    """A table of which only some rows change in a step.

    Attributes:
        average, source: averages and current values [V, D], or [V] of a bias.
        settled: float64 [V], of each row the log of the product of all decays until it was last made good.
    """

    average: Tensor
    source: Tensor
    settled: Tensor

    @torch.no_grad()
    def settle(self, rows: Tensor, passed: float) -> None:
        """Make good the steps of these rows, whose decays until now have a product with the log ``passed``."""
        kept = torch.exp(passed - self.settled[rows]).to(self.average.dtype)
        kept = kept.view(-1, *[1] * (self.average.ndim - 1))
        # In parts: where all rows wait, their values are as large as the table.
        at_once = rows_at_once(self.average)
        for some, share in zip(rows.split(at_once), kept.split(at_once), strict=True):
            values = self.source[some]
            self.average[some] = values + (self.average[some] - values) * share
        self.settled[rows] = passed


class AveragedWeights:
    """The moving averages of tensors; those that are not floating-point numbers, as counters, are copied.

    Args:
        current: the tensors that training changes, by name.
        decay: share of the average that a step keeps, late in training; above 0 and below 1.
        row_sparse: those of them that are tables with a sparse gradient, and change in its rows alone.
    """

    def __init__(self, current: Mapping[str, Tensor], decay: float, row_sparse: Sequence[Tensor] = ()) -> None:
        self.current, self.decay = dict(current), decay
        self._held = {name: tensor.detach().clone() for name, tensor in current.items()}
        tables = {id(tensor) for tensor in row_sparse}
        self._waiting = {
            name: WaitingRows(self._held[name], one, torch.zeros(len(one), dtype=torch.float64, device=one.device))
            for name, one in current.items()
            if id(one) in tables
        }
        self._passed = 0.0
        self._exchanged = False
        pairs = [(self._held[name], tensor) for name, tensor in current.items() if name not in self._waiting]
        self._averages = [average for average, tensor in pairs if tensor.is_floating_point()]
        self._sources = [tensor for _, tensor in pairs if tensor.is_floating_point()]
        self._copied = [(copy, tensor) for copy, tensor in pairs if not tensor.is_floating_point()]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averages, by the same names."""
        if self._exchanged:
            return {name: tensor.detach() for name, tensor in self.current.items()}
        for table in self._waiting.values():
            table.settle((table.settled != self._passed).nonzero().squeeze(1), self._passed)
        return self._held

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds, by kind and name: rows that wait go on waiting, so that keeping changes nothing."""
        settled = {name: table.settled for name, table in self._waiting.items()}
        if settled:
            settled["passed"] = torch.tensor(self._passed, dtype=torch.float64)
        return {"average": self._held, "settled": settled}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Set the averages to those of a checkpoint; a name that it lacks keeps its current value."""
        averages, settled = state["average"], state["settled"]
        for name, tensor in self._held.items():
            tensor.copy_(averages.get(name, self.current[name].detach()))
        for name, table in self._waiting.items():
            if name in settled:
                table.settled.copy_(settled[name])
        self._passed = float(settled.get("passed", 0.0))

    def begin_step(self) -> None:
        """Before the optimizer changes rows, whose gradients are there: make good the steps that they waited."""
        for table in self._waiting.values():
            gradient = table.source.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                # Kept: the optimizer asks for it again.
                table.source.grad = gradient.coalesce()
                table.settle(table.source.grad.indices()[0], self._passed)
            else:
                table.settle(torch.arange(len(table.source), device=table.source.device), self._passed)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the current values, after the step with this number, from 0."""
        decay = warmed_decay(self.decay, step)
        if self._averages:
            # One call for all tensors: it takes a small share of a student's step.
            torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        self._passed += math.log(decay)
        for copy, tensor in self._copied:
            copy.copy_(tensor)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the averages in place of the current values within the context, which must not change them.

        The averages' own tensors hold the current values meanwhile, so that nothing is held twice.
        """
        exchange(self.current, self.tensors)
        self._exchanged = True
        try:
            yield
        finally:
            exchange(self.current, self._held)
            self._exchanged = False


@torch.no_grad()
def overwrite(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy each of ``values`` into the tensor of its name, in place."""
    for name, value in values.items():
        tensors[name].copy_(value)


def rows_at_once(table: Tensor) -> int:
    """How many rows of a table are copied at once where it is changed in place, at least 1."""
    return max(1, AT_ONCE // max(1, table[:1].numel()))


@torch.no_grad()
def exchange(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Exchange the values of distinct tensors with those of the others of their names and shapes, in place."""
    for name, tensor in tensors.items():
        one, other = torch.atleast_1d(tensor), torch.atleast_1d(others[name])
        rows = rows_at_once(one)
        # In parts, so that little is held twice.
        for part, its_other in zip(one.split(rows), other.split(rows), strict=True):
            held = part.clone()
            part.copy_(its_other)
            its_other.copy_(held)
