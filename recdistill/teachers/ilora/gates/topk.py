"""The gate of the likeliest experts only ("topK" in iLoRA's release)."""

import torch
from torch import Tensor

from recdistill.errors import InputError
from recdistill.registry import GATES
from recdistill.teachers.ilora.gates.linear import LinearGate


@GATES.register("topk")
class TopKGate(LinearGate):
    """Only the ``kept`` likeliest experts weigh: softmax over their probabilities, zero elsewhere.

    The release keeps one, whose weight is then the constant 1: no gradient reaches the gate. Keep two or more
    for a gate that learns.

    Raises:
        InputError: ``kept`` is not between 1 and the number of experts.
    """

    def __init__(self, state_size: int, experts: int, kept: int = 1) -> None:
        super().__init__(state_size, experts)
        if not 1 <= kept <= experts:
            raise InputError(f"gate topk: {kept} experts kept of {experts}; keep between 1 and {experts}")
        self.kept = kept

    def weights(self, logits: Tensor) -> Tensor:
        """Weights [..., K] with ``kept`` entries above zero."""
        probability, expert = logits.softmax(dim=-1).topk(self.kept, dim=-1)
        return torch.zeros_like(logits).scatter(-1, expert, probability.softmax(dim=-1).to(logits.dtype))
