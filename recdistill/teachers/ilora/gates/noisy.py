"""The linear gate with learned noise."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.registry import GATES
from recdistill.teachers.ilora.gates.linear import LinearGate


@GATES.register("noisy")
class NoisyGate(LinearGate):
    """The linear gate with learned Gaussian noise on its logits in training mode (Shazeer et al., ICLR 2017)."""

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.noise = nn.Linear(state_size, experts, bias=False)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]; in training mode plus normal noise of scale softplus(Linear(state))."""
        clean = self.linear(state)
        if not self.training:
            return clean
        return clean + torch.randn_like(clean) * F.softplus(self.noise(state))
