"""The policy ``ground_truth_error`` prefers samples where the student is most wrong on the target."""

from torch import Tensor

from recdistill.distillation.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("ground_truth_error", queries=True)
def ground_truth_error(signals: StudentSignals) -> Tensor:
    """The student's cross-entropy on the target, nats [N]."""
    return signals.student_loss
