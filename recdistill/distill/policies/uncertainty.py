"""The policy ``uncertainty``."""

from torch import Tensor

from recdistill.distill.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("uncertainty", queries=True)
def uncertainty(signals: StudentSignals) -> Tensor:
    """Where the student is least sure: its entropy over all items."""
    return signals.student_entropy
