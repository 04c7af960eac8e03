"""The policy ``all``."""

import torch
from torch import Tensor

from recdistill.distill.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("all", queries=False)
def all_samples(signals: StudentSignals) -> Tensor:
    """Every eligible sample alike; a fraction below 1 draws among them."""
    return torch.zeros_like(signals.student_loss)
