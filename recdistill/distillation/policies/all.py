"""The policy ``all`` prefers no sample: all eligible ones alike, drawn at random where the fraction is below 1."""

import torch
from torch import Tensor

from recdistill.distillation.selection import StudentSignals
from recdistill.registry import POLICIES


@POLICIES.register("all", queries=False)
def all_samples(signals: StudentSignals) -> Tensor:
    """The score 0 for every sample [N]: equal scores are ordered by the seed."""
    return torch.zeros_like(signals.student_loss)
