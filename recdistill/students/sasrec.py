"""SASRec: self-attention over the history, as DLLM2Rec and LLaRA release it (Kang & McAuley, ICDM 2018)."""

import math
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


class SelfAttention(nn.Module):
    """Causal multi-head attention; only queries are layer-normed, and the normed queries are the residual."""

    def __init__(self, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, future: Tensor, asking: Tensor | None = None) -> Tensor:
        """Attend from the positions ``asking``, or from all.

        Args:
            states: [W, L, D].
            future: -inf where a position is later than the one that asks, else 0; [L, L], or of ``asking`` [W, T, L].
            asking: the states [W, T, D] of the positions that ask; None for all.

        Returns:
            [W, L, D], or [W, T, D] of ``asking``.
        """
        normed = self.query_norm(states if asking is None else asking)
        query = self._split(self.query(normed))  # (W*H, L, D/H)
        # One product and one copy for both.
        both = F.linear(
            states, torch.cat([self.key.weight, self.value.weight]), torch.cat([self.key.bias, self.value.bias])
        )
        key, value = self._split(both.unflatten(2, (2, -1)).movedim(2, 0)).unflatten(0, (2, -1)).unbind()
        if future.ndim == 3 and self.heads > 1:
            future = future.repeat_interleave(self.heads, dim=0)
        scores = torch.baddbmm(future, query, key.transpose(1, 2), alpha=1.0 / math.sqrt(query.shape[-1]))
        # With dropout, on CPU, at L 50-100, explicit products beat scaled_dot_product_attention.
        attended = self.dropout(scores.softmax(dim=-1)) @ value
        return self._merge(attended) + normed

    def _split(self, states: Tensor) -> Tensor:
        """[..., L, D] to [N, L, D/H], heads apart."""
        if self.heads == 1:
            return states.flatten(0, -3)
        return states.unflatten(-1, (self.heads, -1)).transpose(-3, -2).flatten(0, -3)

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
        self.dropout = Dropout(dropout)

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
    batches_seeds = True

    def __init__(
        self, items: ItemEmbedding, blocks: int, heads: int, dropout: float, max_length: int, output: str
    ) -> None:
        super().__init__(items, items.hidden_size, max_length, output)
        hidden_size = items.hidden_size
        if blocks < 1:
            raise InputError(f"blocks={blocks}: must be at least 1")
        if heads < 1 or hidden_size % heads:
            raise InputError(f"heads={heads}: must divide hidden_size={hidden_size}; give a number that does")
        self.positions = nn.Embedding(max_length, hidden_size)
        self.dropout = Dropout(dropout)
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
        # Of the last block, queries and what is position-wise are computed for the asked positions alone.
        first, count = asked_range(row, column, history.shape[0], size)
        if count < size:
            places = (first.unsqueeze(1) + torch.arange(count, device=first.device)).clamp_(max=size - 1)  # (W, T)
            windows = torch.arange(len(history), device=first.device).unsqueeze(1)
            asking = gather_states(states, windows.expand_as(places).flatten(), places.flatten())
            asking = asking.unflatten(0, places.shape)
            states = self.attentions[-1](states, future[places], asking)
            column = column - first[row]
        else:
            states = self.attentions[-1](states, future)
        states = gather_states(states, row, column)  # (S, D)
        return self.last_norm(self.feed_forwards[-1](states))


def asked_range(row: Tensor, column: Tensor, windows: int, length: int) -> tuple[Tensor, int]:
    """The first column asked of each window, int64 [W], and how many columns hold those of any window from there.

    On an accelerator, whose answer would have to be waited for, and in ONNX, all columns.
    """
    if column.device.type != "cpu" or torch.onnx.is_in_onnx_export() or not len(column):
        return column.new_zeros(windows), length
    first = column.new_full((windows,), length - 1).scatter_reduce(0, row, column, "amin")
    return first, int((column - first[row]).max()) + 1
