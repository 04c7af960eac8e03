"""Averaged weights: an exponential moving average (EMA) of what an optimizer changes, step by step.

A student is validated and kept with the averages: single steps scatter around a point that the average is near
(Polyak and Juditsky, 1992; Izmailov et al., 2018), so that one lucky epoch says less.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def warmed_decay(decay: float, step: int) -> float:
    """The decay at a step: ``min(decay, (1 + step) / (10 + step))``, so that the start is soon forgotten.

    Args:
        decay: share of the average that a step keeps, late in training.
        step: steps done before this one.
    """
    return min(decay, (1 + step) / (10 + step))


class AveragedWeights:
    """The moving averages of tensors; those that are not floating-point numbers, as counters, are copied.

    Args:
        current: the tensors that training changes, by name.
        decay: share of the average that a step keeps, late in training; below 1.

    Attributes:
        tensors: the averages, by the same names.
    """

    def __init__(self, current: Mapping[str, Tensor], decay: float) -> None:
        self.current, self.decay = dict(current), decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in current.items()}
        pairs = [(self.tensors[name], tensor) for name, tensor in current.items()]
        self._averages = [average for average, tensor in pairs if tensor.is_floating_point()]
        self._sources = [tensor for _, tensor in pairs if tensor.is_floating_point()]
        self._copied = [(copy, tensor) for copy, tensor in pairs if not tensor.is_floating_point()]

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the averages to those of a checkpoint; a name that it lacks keeps its current value."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors.get(name, self.current[name].detach()))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the current values, after the step with this number, from 0."""
        # One call for all tensors: it takes a small share of a student's step.
        torch._foreach_lerp_(self._averages, self._sources, 1 - warmed_decay(self.decay, step))
        for copy, tensor in self._copied:
            copy.copy_(tensor)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the averages in place of the current values within the context."""
        held = {name: tensor.detach().clone() for name, tensor in self.current.items()}
        overwrite(self.current, self.tensors)
        try:
            yield
        finally:
            overwrite(self.current, held)


@torch.no_grad()
def overwrite(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy each of ``values`` into the tensor of its name, in place."""
    for name, value in values.items():
        tensors[name].copy_(value)
