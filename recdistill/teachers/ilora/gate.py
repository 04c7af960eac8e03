"""The gate of iLoRA (Instance-wise LoRA, NeurIPS 2024): a sequence's state to the mixing weights of K experts.

ω = softmax(f(h)), with h [..., D] the state of a trained sequential recommender. All gates share one call,
``gate(state) -> weights``; a gate of `recdistill.teachers.ilora.gates` is an f.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recdistill.errors import InputError
from recdistill.registry import GATES


class Gate(nn.Module, ABC):
    """Mixing weights [..., K], non-negative with sum one, of states [..., D]; subclasses write ``logits``.

    One registered with options of its own is built with their instance as the third argument.

    Args:
        state_size: D.
        experts: K.

    Raises:
        InputError: a size is below 1.
    """

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__()
        for name, value in (("state_size", state_size), ("experts", experts)):
            if value < 1:
                raise InputError(f"gate: {name} is {value}; give at least 1")
        self.state_size = state_size
        self.experts = experts

    @property
    def learns(self) -> bool:
        """Whether a gradient of the weights reaches the gate's parameters."""
        return True

    @abstractmethod
    def logits(self, state: Tensor) -> Tensor:
        """Unnormalised weights [..., K] of states [..., D]."""

    def forward(self, state: Tensor) -> Tensor:
        """Mixing weights [..., K], in the parameters' precision, of states [..., D]. ValueError on another D."""
        if state.ndim < 1 or state.shape[-1] != self.state_size:
            raise ValueError(f"the gate's state has shape {list(state.shape)}; must be [..., {self.state_size}]")
        return self.weights(self.logits(state.to(next(self.parameters()).dtype)))

    def weights(self, logits: Tensor) -> Tensor:
        """Softmax over the experts [..., K]."""
        return logits.softmax(dim=-1)


class GatePerLayer(nn.Module):
    """A gate of its own for each of N adapted transformer layers: weights [..., N, K] of states [..., D].

    Args:
        gates: N of them, of the same sizes.
    """

    def __init__(self, gates: Iterable[Gate]) -> None:
        super().__init__()
        self.gates = nn.ModuleList(gates)

    def forward(self, state: Tensor) -> Tensor:
        """Mixing weights [..., N, K] of states [..., D]. ValueError on another D."""
        return torch.stack([gate(state) for gate in self.gates], dim=-2)


def build_gate(
    name: str, state_size: int, experts: int, layers: int | None = None, options: Mapping[str, Any] | None = None
) -> Gate | GatePerLayer:
    """The gate registered under this name, from states [..., D] to weights [..., K].

    Args:
        name: of the gate.
        state_size: D.
        experts: K.
        layers: where given, one gate for each of so many layers; weights are then [..., layers, K].
        options: the gate's own options by name; those left out have their defaults.

    Raises:
        InputError: no gate has this name, a size is below 1, or an option is unknown or does not fit.
    """
    kind, of_options = GATES.get(name), GATES.options(name)
    known = set() if of_options is None else {spec.name for spec in dataclasses.fields(of_options)}
    unknown = set(options or {}) - known
    if unknown:
        raise InputError(f"gate {name!r} has no option {', '.join(sorted(unknown))}; leave it out")
    own = () if of_options is None else (of_options(**(options or {})),)
    if layers is None:
        gate: Gate = kind(state_size, experts, *own)
        return gate
    return GatePerLayer(kind(state_size, experts, *own) for _ in range(layers))


def gate_metrics(weights: Tensor) -> dict[str, Tensor]:
    """How mixing weights [..., K] are spread, each a scalar.

    ``gate_entropy`` is the mean entropy in nats: log K where every expert weighs the same, 0 where one has it all.
    ``expert_usage_<k>`` is the mean weight of expert k, from 0.
    """
    usage = weights.flatten(end_dim=-2).mean(dim=0)
    entropy = torch.special.entr(weights).sum(dim=-1).mean()
    return {"gate_entropy": entropy, **{f"expert_usage_{expert}": share for expert, share in enumerate(usage)}}
