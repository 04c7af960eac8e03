"""The linear gate: one layer without bias ("Dense" in iLoRA's release)."""

from torch import Tensor, nn

from recdistill.registry import GATES
from recdistill.teachers.ilora.gate import Gate


@GATES.register("linear")
class LinearGate(Gate):
    """Softmax of one Linear(D->K) without bias ("Dense" in the release)."""

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.linear = nn.Linear(state_size, experts, bias=False)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        return self.linear(state)
