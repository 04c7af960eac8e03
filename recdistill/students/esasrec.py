"""eSASRec: SASRec with LiGR layers (Tikhonovich et al., RecSys 2025; layers by Borisyuk et al., 2025)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.dropout import Dropout
from recdistill.students.item_embedding import INITIAL_STD, ItemEmbedding
from recdistill.students.student import Student, gather_states


@dataclass(frozen=True, kw_only=True)
class ESASRecOptions:
    """Own options of an eSASRec."""

    blocks: int = option(2, "stacked blocks or layers", least=1)
    heads: int = option(2, "attention heads; they divide hidden_size", least=1)
    expansion: int = option(4, "width of eSASRec's feed-forward layers, in hidden sizes", least=1)


class CausalAttention(nn.Module):
    """Multi-head attention of each position to itself and the positions before it."""

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """[W, L, D] to [W, L, D]."""
        split = self.query_key_value(states).unflatten(-1, (3, self.heads, -1))  # (W, L, 3, H, D/H)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (W, H, L, D/H) each
        if self.training and self.dropout.probability:
            # Explicit products with our dropout take less time than torch's attention with its own.
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            future = torch.full(scores.shape[-2:], -torch.inf, device=scores.device).triu(1)
            attended = self.dropout((scores + future).softmax(dim=-1)) @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(attended.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Position-wise feed-forward ``(silu(x A) * x B) C`` (Shazeer, 2020), without biases."""

    def __init__(self, hidden_size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, width, bias=False)
        self.inner = nn.Linear(hidden_size, width, bias=False)
        self.outer = nn.Linear(width, hidden_size, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.outer(self.dropout(F.silu(self.gate(states)) * self.inner(states)))


class GatedResidual(nn.Module):
    """``x + sigmoid(x W + b) * F(LayerNorm(x))``: the residual of a LiGR layer, its gate read from the input."""

    def __init__(self, inside: nn.Module, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.inside = inside
        self.gate = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return states + torch.sigmoid(self.gate(states)) * self.dropout(self.inside(self.norm(states)))


@STUDENTS.register("esasrec", options=ESASRecOptions, gradient=True)
class ESASRec(Student):
    """Self-attentive sequential recommender of LiGR layers, causal; see `Student` for the interface.

    A layer is attention and then a SwiGLU feed-forward, each as a `GatedResidual`. The paper trains it with sampled
    softmax; here the loss is the step's, as of every student, and positions count from the window's first item.

    Args:
        items: the item embedding, width D.
        dropout: probability on the embeddings, attention weights, inside the feed-forward and before each gate.
        max_length: number of learned positions.
        output: see `Student`.
        blocks: layers.
        heads: attention heads; they divide D.
        expansion: width of the feed-forward, as a multiple of D.

    Raises:
        InputError: the heads do not divide D.
    """

    causal = True
    batches_seeds = True

    def __init__(
        self,
        items: ItemEmbedding,
        dropout: float,
        max_length: int,
        output: str,
        blocks: int,
        heads: int,
        expansion: int,
    ) -> None:
        super().__init__(items, items.hidden_size, max_length, output)
        size = items.hidden_size
        if size % heads:
            raise InputError(f"heads={heads}: must divide hidden_size={size}; give a number that does")
        self.positions = nn.Embedding(max_length, size)
        self.dropout = Dropout(dropout)
        self.attentions = nn.ModuleList(
            GatedResidual(CausalAttention(size, heads, dropout), size, dropout) for _ in range(blocks)
        )
        self.feed_forwards = nn.ModuleList(
            GatedResidual(SwiGLU(size, expansion * size, dropout), size, dropout) for _ in range(blocks)
        )
        nn.init.normal_(self.positions.weight, std=INITIAL_STD)
        for module in (*self.attentions.modules(), *self.feed_forwards.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States [S, D] at ``(row, column)`` of windows [W, L]; see `Student.forward`."""
        self._check_length(history)
        states = self.dropout(self.items(history) + self.positions.weight[: history.shape[1]])  # (W, L, D)
        for attention, feed_forward in zip(self.attentions[:-1], self.feed_forwards[:-1], strict=True):
            states = feed_forward(attention(states))
        # The rest is position-wise, so only the asked positions go through it.
        return self.feed_forwards[-1](gather_states(self.attentions[-1](states), row, column))
