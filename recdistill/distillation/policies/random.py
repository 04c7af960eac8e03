"""The policy ``random`` prefers samples drawn by the seed."""

from torch import Tensor

from recdistill.distillation.selection import StudentSignals, permutation
from recdistill.registry import POLICIES


@POLICIES.register("random", queries=True)
def random_samples(signals: StudentSignals) -> Tensor:
    """The places of the samples in a permutation drawn by the seed [N]."""
    order = permutation(len(signals.target), signals.seed)
    return order.to(signals.student_loss)
