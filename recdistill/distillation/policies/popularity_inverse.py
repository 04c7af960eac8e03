"""The policy ``popularity_inverse`` prefers samples with a rare target."""

from torch import Tensor

from recdistill.distillation.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("popularity_inverse", queries=True)
def popularity_inverse(signals: StudentSignals) -> Tensor:
    """Minus how often a sample's target is a training target [N]."""
    return -signals.item_count[signals.target].to(signals.student_loss)
