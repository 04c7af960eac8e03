"""SASRec: self-attention over the history, as DLLM2Rec and LLaRA release it (Kang & McAuley, ICDM 2018)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.item_embedding import INITIAL_STD, ItemEmbedding
from recdistill.students.student import Student, gather_states


class SelfAttention(nn.Module):
    """Causal multi-head attention; only queries are layer-normed, and the normed queries are the residual."""

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, future: Tensor) -> Tensor:
        """[W, L, D] to [W, L, D]; ``future`` [L, L] is -inf above the diagonal, 0 elsewhere."""
        normed = self.query_norm(states)
        query, key, value = self.query(normed), self.key(states), self.value(states)
        query, key, value = (self._split(x) for x in (query, key, value))  # (W*H, L, D/H)
        scores = torch.baddbmm(future, query, key.transpose(1, 2), alpha=1.0 / math.sqrt(query.shape[-1]))
        # With dropout, on CPU, at L 50-100, explicit products beat scaled_dot_product_attention.
        attended = self.dropout(scores.softmax(dim=-1)) @ value
        return self._merge(attended) + normed

    def _split(self, states: Tensor) -> Tensor:
        if self.heads == 1:
            return states
        windows, length, hidden_size = states.shape
        split = states.view(windows, length, self.heads, hidden_size // self.heads)
        return split.transpose(1, 2).flatten(0, 1)

    def _merge(self, states: Tensor) -> Tensor:
        if self.heads == 1:
            return states
        heads = states.unflatten(0, (-1, self.heads))  # (W, H, L, D/H)
        return heads.transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Two position-wise layers D->D->D with ReLU; the layer-normed input is the residual; a norm follows."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(hidden_size)
        self.inner = nn.Linear(hidden_size, hidden_size)
        self.outer = nn.Linear(hidden_size, hidden_size)
        self.output_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        normed = self.input_norm(states)
        inner = self.dropout(F.relu(self.inner(normed)))
        return self.output_norm(self.dropout(self.outer(inner)) + normed)


@dataclass(frozen=True, kw_only=True)
class SASRecOptions:
    """Own options of a SASRec."""

    blocks: int = option(2, "stacked blocks or layers", least=1)
    heads: int = option(2, "attention heads; they divide hidden_size", least=1)


@STUDENTS.register("sasrec", options=SASRecOptions, gradient=True)
class SASRec(Student):
    """Self-attentive sequential recommender, causal; see `Student` for the interface.

    Right padding needs no mask of its own: a real position never attends to a later one. The released query
    mask is left out, since it zeroes arbitrary positions while layer norms are at their initial weights.

    Args:
        items: the item embedding, width D.
        blocks: attention and feed-forward pairs, at least 1 (the release has 1).
        heads: attention heads; they divide D.
        dropout: probability on the embeddings, attention weights and feed-forward.
        max_length: number of learned positions.
        output: see `Student`.

    Raises:
        InputError: the heads do not divide D.
    """

    causal = True

    def __init__(
        self, items: ItemEmbedding, blocks: int, heads: int, dropout: float, max_length: int, output: str
    ) -> None:
        super().__init__(items, items.hidden_size, max_length, output)
        hidden_size = items.hidden_size
        if blocks < 1 or heads < 1 or hidden_size % heads:
            raise InputError(f"{blocks} blocks of {heads} heads do not fit hidden_size {hidden_size}; heads divide it")
        self.positions = nn.Embedding(max_length, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.attentions = nn.ModuleList(SelfAttention(hidden_size, heads, dropout) for _ in range(blocks))
        self.feed_forwards = nn.ModuleList(FeedForward(hidden_size, dropout) for _ in range(blocks))
        self.last_norm = nn.LayerNorm(hidden_size)
        self.register_buffer("future", torch.full((max_length, max_length), -math.inf).triu(1), persistent=False)
        nn.init.normal_(self.positions.weight, std=INITIAL_STD)
        for module in (*self.attentions.modules(), *self.feed_forwards.modules()):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States [S, D] at ``(row, column)`` of windows [W, L]; see `Student.forward`."""
        self._check_length(history)
        size = history.shape[1]
        future = self.future[:size, :size]  # type: ignore[index]
        states = self.dropout(self.items(history) + self.positions.weight[:size])  # (W, L, D)
        for attention, feed_forward in zip(self.attentions[:-1], self.feed_forwards[:-1], strict=True):
            states = feed_forward(attention(states, future))
        # The rest is position-wise, so only the asked positions go through it.
        states = gather_states(self.attentions[-1](states, future), row, column)  # (S, D)
        return self.last_norm(self.feed_forwards[-1](states))
