"""The policy ``teacher_confidence`` prefers samples where the teacher is most sure of its best candidate."""

from torch import Tensor

from recdistill.distillation.selection import SelectionSignals
from recdistill.registry import POLICIES


@POLICIES.register("teacher_confidence", queries=False)
def teacher_confidence(signals: SelectionSignals) -> Tensor:
    """Minus the smallest distance among the teacher's candidates [N]."""
    return -signals.distance.amin(dim=1)
