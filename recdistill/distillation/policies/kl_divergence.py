"""The policy ``kl_divergence`` prefers samples where student and teacher differ most on the candidates."""

from torch import Tensor

from recdistill.distillation.losses import candidate_divergence
from recdistill.distillation.selection import SelectionSignals
from recdistill.registry import POLICIES


@POLICIES.register("kl_divergence", queries=False)
def kl_divergence(signals: SelectionSignals) -> Tensor:
    """``KL(teacher || student)`` over the K candidates [N], both softened by the temperature: `losses.ranking_kl`."""
    found = candidate_divergence(signals.candidate_log_probs, signals.distance, signals.temperature)
    return found.to(signals.student_loss.dtype)
