"""The policy ``popularity_inverse``."""

from torch import Tensor

from recdistill.distill.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("popularity_inverse", queries=True)
def popularity_inverse(signals: StudentSignals) -> Tensor:
    """The rarest targets first."""
    return -signals.item_count[signals.target].to(signals.student_loss)
