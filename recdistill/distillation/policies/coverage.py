"""The policy ``coverage`` prefers samples for which the teacher recommends items that it rarely recommends."""

import torch
from torch import Tensor

from recdistill.distillation.selection import SelectionSignals
from recdistill.registry import POLICIES


@POLICIES.register("coverage", queries=False)
def coverage(signals: SelectionSignals) -> Tensor:
    """The mean over a sample's candidates of ``1 / (how often the teacher recommends the item)`` [N]."""
    # Ids of samples that are not covered may be no items at all.
    candidates = torch.where(signals.eligible.unsqueeze(1), signals.candidates, 0)
    recommended = torch.zeros(len(signals.item_count), dtype=torch.int64, device=candidates.device)
    counted = signals.eligible.unsqueeze(1).expand_as(candidates).long()
    recommended.scatter_add_(0, candidates.flatten(), counted.flatten())
    return (1.0 / recommended.clamp(min=1)[candidates].to(signals.student_loss)).mean(dim=1)
