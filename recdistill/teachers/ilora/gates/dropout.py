"""The linear gate with dropout on the state."""

import torch.nn.functional as F
from torch import Tensor

from recdistill.registry import GATES
from recdistill.teachers.ilora.gates.linear import LinearGate

DROPOUT = 0.1


@GATES.register("dropout")
class DropoutGate(LinearGate):
    """The linear gate with dropout on the state in training mode."""

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        return self.linear(F.dropout(state, DROPOUT, self.training))
