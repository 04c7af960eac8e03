"""The policy ``ground_truth_error``."""

from torch import Tensor

from recdistill.distill.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("ground_truth_error", queries=True)
def ground_truth_error(signals: StudentSignals) -> Tensor:
    """Where the student is most wrong: its cross-entropy on the target."""
    return signals.student_loss
