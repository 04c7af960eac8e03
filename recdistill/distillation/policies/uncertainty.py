"""The policy ``uncertainty`` prefers samples where the student is least sure of the next item."""

from torch import Tensor

from recdistill.distillation.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("uncertainty", queries=True)
def uncertainty(signals: StudentSignals) -> Tensor:
    """The entropy of the student's distribution over all items, nats [N]."""
    return signals.student_entropy
