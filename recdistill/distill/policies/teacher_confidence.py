"""The policy ``teacher_confidence``."""

from torch import Tensor

from recdistill.distill.selection import SelectionSignals
from recdistill.registry import POLICIES


@POLICIES.register("teacher_confidence", queries=False)
def teacher_confidence(signals: SelectionSignals) -> Tensor:
    """Where the teacher is most sure: the smallest distance among its candidates."""
    return -signals.distance.amin(dim=1)
