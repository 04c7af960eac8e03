"""The policy ``random``."""

from torch import Tensor

from recdistill.distill.selection import StudentSignals, permutation
from recdistill.registry import POLICIES


@POLICIES.register("random", queries=True)
def random_samples(signals: StudentSignals) -> Tensor:
    """Samples drawn by the seed."""
    order = permutation(len(signals.target), signals.seed)
    return order.to(signals.student_loss)
