"""The two-layer gate ("MLP" in iLoRA's release)."""

import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.registry import GATES
from recdistill.teachers.ilora.gate import Gate


@GATES.register("mlp")
class MLPGate(Gate):
    """Softmax of Linear(D->2D), GELU, Linear(2D->K) ("MLP" in the release)."""

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.hidden = nn.Linear(state_size, 2 * state_size)
        self.output = nn.Linear(2 * state_size, experts)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        return self.output(F.gelu(self.hidden(state)))
