"""The policy ``kl_divergence`` prefers samples where student and teacher differ most on the candidates."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.distillation.selection import SelectionSignals
from recdistill.registry import POLICIES


@POLICIES.register("kl_divergence", queries=False)
def kl_divergence(signals: SelectionSignals) -> Tensor:
    """``KL(teacher || student)`` over the K candidates [N], both softened by the temperature: `losses.ranking_kl`."""
    teacher = torch.log_softmax(-signals.distance / signals.temperature, dim=1)
    student = torch.log_softmax(signals.candidate_log_probs / signals.temperature, dim=1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
