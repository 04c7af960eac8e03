"""The gate of the likeliest experts only ("topK" in iLoRA's release)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import GATES
from recdistill.teachers.ilora.gates.linear import LinearGate


@dataclass(frozen=True, kw_only=True)
class TopKOptions:
    """Own options of the gate ``topk``."""

    gate_kept: int = option(1, "likeliest experts that weigh; the gate learns from 2 on, the release keeps 1", least=1)


@GATES.register("topk", options=TopKOptions)
class TopKGate(LinearGate):
    """Only the ``gate_kept`` likeliest experts weigh: softmax over their probabilities, zero elsewhere.

    The release keeps one, whose weight is then the constant 1: no gradient reaches the gate. Keep two or more
    for a gate that learns.

    Raises:
        InputError: more experts are kept than there are.
    """

    def __init__(self, state_size: int, experts: int, options: TopKOptions) -> None:
        super().__init__(state_size, experts)
        if options.gate_kept > experts:
            raise InputError(f"gate_kept={options.gate_kept}: must be at most experts={experts}")
        self.kept = options.gate_kept

    @property
    def learns(self) -> bool:
        """Whether a gradient reaches the gate: only where two experts or more are weighed against each other."""
        return self.kept > 1

    def weights(self, logits: Tensor) -> Tensor:
        """Weights [..., K] with ``gate_kept`` entries above zero."""
        probability, expert = logits.softmax(dim=-1).topk(self.kept, dim=-1)
        return torch.zeros_like(logits).scatter(-1, expert, probability.softmax(dim=-1).to(logits.dtype))
