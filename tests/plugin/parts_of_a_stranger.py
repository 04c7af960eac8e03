"""A stranger's parts in one file: a student, a policy, a source, a metric and a loss term."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recdistill import LOSS_TERMS, METRICS, POLICIES, SOURCES, STUDENTS, Interactions, SelectionSignals, Student, option


@dataclass(frozen=True, kw_only=True)
class DecayedMeanOptions:
    """Own options of the student."""

    decay: float = option(0.8, "weight of an item beside that of the one after it", above=0, most=1)


@STUDENTS.register("decayed_mean", options=DecayedMeanOptions, gradient=True)
class DecayedMean(Student):
    """The mean of the history's embeddings, late items first, through one layer."""

    causal = True

    def __init__(self, items, *, dropout, max_length, output, decay):
        super().__init__(items, items.hidden_size, max_length, output)
        self.decay = decay
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(items.hidden_size, items.hidden_size)

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States [S, D]; see `Student.forward`."""
        embedded = self.items(history)  # (W, L, D)
        place = torch.arange(history.shape[1])
        age = column.unsqueeze(1) - place  # (S, L)
        weight = torch.where(age >= 0, self.decay ** age.clamp(min=0).float(), 0.0)
        weight = weight / weight.sum(dim=1, keepdim=True)
        mean = torch.einsum("sl,sld->sd", weight, self.dropout(embedded)[row])
        return mean + torch.tanh(self.layer(mean))


@POLICIES.register("late_losers", queries=True)
def late_losers(signals: SelectionSignals) -> Tensor:
    """The samples that the student gets most wrong, rare targets before popular ones."""
    return signals.student_loss / (1 + signals.item_count[signals.target])


@SOURCES.register("ring")
def ring(config) -> Interactions:
    """Forty users who walk around a ring of thirty items; titles name the place."""
    random = np.random.default_rng(0)
    users, steps, items = 40, 12, 30
    first = random.integers(items, size=users)
    noise = random.random((users, steps)) < 0.1
    item = (first[:, None] + np.arange(steps) + noise) % items
    return Interactions(
        user=np.repeat(np.arange(users), steps),
        item=item.reshape(-1),
        timestamp=np.tile(np.arange(steps), users),
        user_ids=tuple(f"walker {user}" for user in range(users)),
        item_ids=tuple(f"place-{one}" for one in range(items)),
        titles=tuple(f"Place {one} of the ring" for one in range(items)),
        source="ring",
    )


@METRICS.register("within", cut_offs=(3, 10))
def within(ranks: Tensor, k: int) -> Tensor:
    """1 at rank 1, falling in a line to 0 behind rank ``k``, float64 [N]."""
    return (1 - (ranks - 1).double() / k).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class MarginOptions:
    """Own options of the loss term."""

    margin: float = option(1.0, "by how much a candidate's logit shall exceed the mean", least=0)


@LOSS_TERMS.register("margin", options=MarginOptions, help="weight of the candidates' margin over the mean logit")
class Margin(nn.Module):
    """Hinge of the teacher's first candidate over the mean logit, a mean over all samples."""

    def __init__(self, options, context):
        super().__init__()
        self.margin = options.margin

    def forward(self, logits, target, states, teacher) -> Tensor:
        """A scalar."""
        first = logits.gather(1, teacher.candidates[:, :1]).squeeze(1)
        short = (self.margin - (first - logits.mean(dim=1))).clamp(min=0)
        return torch.where(teacher.distilled, short, 0.0).mean()
