"""Texts of different lengths in one row of tokens, each attending to itself alone: no padding, one pass for all.

The layers of an LLM read each token by itself, but for attention. So texts may follow each other in one row, their
positions beginning anew, as long as attention keeps them apart: there they are laid out as rows of like length, which
pad a little, and put back. Attention is the smaller part of a pass over short texts, and is torch's, causal and without
a mask, so that it is flash attention where the device has it. A mask by document, as transformers makes it, would
compute and hold all pairs of tokens of the row.

An LLM whose layers mix tokens otherwise, as states, convolutions or penalties of distance do, reads texts as padded
rows; `longest_in_row` tells.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

#: What transformers calls torch's attention.
BY_TORCH = "sdpa"
#: A row has a multiple of so many tokens, filled up by texts of one token, so that few numbers of tokens come up: for
#: each a CPU compiles its products anew.
BLOCK = 32
#: Share of a group of texts that attention may pad.
MOST_PADDING = 1 / 3
#: Lengths of the texts that tell whether an LLM keeps texts apart, and how far from a text's own pass its states may
#: be: as many times as a padded row's are, which only rounds otherwise, and by the share that float32 rounds.
TRIED, TIMES, SHARE = (7, 4, 11), 8.0, 1e-3

Attention = Callable[..., tuple[Tensor, Any]]
Mask = Callable[..., Any]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Documents:
    """Where the texts of a row of N tokens are, one after the other.

    Attributes:
        lengths: of the texts, the longest first.
        position: int64 [1, N], of each token in its text.
        groups: rows and width of the texts that attention reads together, as they are in ``lengths``.
        spread: int64 [P], the token of each place of the padded groups; 0 at padding.
        place: int64 [N], the place of each token there.
        padding: int64 [P - N], the places of padding.
    """

    lengths: tuple[int, ...]
    position: Tensor
    groups: tuple[tuple[int, int], ...]
    spread: Tensor
    place: Tensor
    padding: Tensor

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Documents":
        """Texts of these lengths, which do not rise."""
        if not lengths or lengths[-1] < 1 or sorted(lengths, reverse=True) != lengths:
            raise ValueError(f"lengths={lengths}: must be at least 1 and not rise")
        groups = groups_of(lengths, MOST_PADDING)
        length = torch.tensor(lengths)
        width = torch.tensor([width for rows, width in groups for _ in range(rows)])
        text = torch.repeat_interleave(torch.arange(len(length)), length)
        position = torch.arange(len(text)) - (length.cumsum(0) - length)[text]
        place = (width.cumsum(0) - width)[text] + position
        spread = torch.zeros(int(width.sum()), dtype=torch.int64)
        spread[place] = torch.arange(len(text))
        is_padding = torch.ones(len(spread), dtype=torch.bool)
        is_padding[place] = False
        return cls(
            lengths=tuple(lengths),
            position=position.unsqueeze(0).to(device),
            groups=tuple(groups),
            spread=spread.to(device),
            place=place.to(device),
            padding=is_padding.nonzero().squeeze(1).to(device),
        )


def groups_of(lengths: list[int], most_padding: float) -> list[tuple[int, int]]:
    """How many texts each group takes, in turn, and its width; ``most_padding`` of it is padding at most.

    ``lengths`` do not rise.
    """
    groups: list[tuple[int, int]] = []
    begin, real = 0, 0
    for place, length in enumerate(lengths):
        if place > begin and (real + length) < (1 - most_padding) * lengths[begin] * (place - begin + 1):
            groups.append((place - begin, lengths[begin]))
            begin, real = place, 0
        real += length
    return [*groups, (len(lengths) - begin, lengths[begin])]


class Placed(torch.autograd.Function):
    """``x`` at ``index`` along ``dim``, each of its entries once; ``back`` is the way back of the gradient.

    Arguments: x, dim, index, back, and the entries of the gradient that are 0, for they were left out; or None.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # type: ignore[override]
        """The entries at ``index``."""
        x, dim, index, back, left_out = given
        ctx.dim = dim
        ctx.save_for_backward(back, left_out)
        found: Tensor = x.index_select(dim, index)
        return found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The gradient of x."""
        back, left_out = ctx.saved_tensors
        found = gradient.index_select(ctx.dim, back)
        if left_out is not None:
            found.index_fill_(ctx.dim, left_out, 0)
        return found, None, None, None, None


def by_document(attend: Attention, documents: Documents) -> Attention:
    """An attention function of transformers over one row, in which each text attends to itself, by ``attend``."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *given: Any,
        **named: Any,
    ) -> tuple[Tensor, None]:
        parts = zip(*(spread_out(one, documents) for one in (query, key, value)), strict=True)
        found = [attend(module, *part, None, *given, **named)[0].flatten(0, 1) for part in parts]
        # A padded place is no token: nothing reads it, and its gradient is 0.
        together = torch.cat(found) if len(found) > 1 else found[0]
        return Placed.apply(together, 0, documents.place, documents.spread, documents.padding).unsqueeze(0), None

    return attention


def spread_out(states: Tensor, documents: Documents) -> list[Tensor]:
    """States [1, H, N, D] as padded rows [B, H, T, D] of each group."""
    padded = Placed.apply(states[0], 1, documents.spread, documents.place, None)
    parts = padded.split([rows * width for rows, width in documents.groups], dim=1)
    shapes = zip(parts, documents.groups, strict=True)
    return [part.unflatten(1, (rows, width)).transpose(0, 1) for part, (rows, width) in shapes]


def as_it_is(function: Function) -> Function:
    """The same function."""
    return function


@contextmanager
def attention_changed(
    attention: Callable[[Attention], Attention], mask: Callable[[Mask], Mask] = as_it_is
) -> Iterator[None]:
    """While it lasts, LLMs of transformers that attend by torch do so by what these make of its attention and masks."""
    attend, make_mask = ALL_ATTENTION_FUNCTIONS[BY_TORCH], ALL_MASK_ATTENTION_FUNCTIONS[BY_TORCH]
    ALL_ATTENTION_FUNCTIONS[BY_TORCH], ALL_MASK_ATTENTION_FUNCTIONS[BY_TORCH] = attention(attend), mask(make_mask)
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[BY_TORCH], ALL_MASK_ATTENTION_FUNCTIONS[BY_TORCH] = attend, make_mask


def documents_apart(documents: Callable[[], Documents | None]) -> AbstractContextManager[None]:
    """While it lasts, LLMs of transformers that attend by torch keep apart the texts of a row.

    ``documents`` tells of the pass at hand; of padded rows it is None.
    """

    def attention(attend: Attention) -> Attention:
        def apart(*given: Any, **named: Any) -> tuple[Tensor, Any]:
            texts = documents()
            return (attend if texts is None else by_document(attend, texts))(*given, **named)

        return apart

    def mask(make_mask: Mask) -> Mask:
        return lambda *given, **named: make_mask(*given, **named) if documents() is None else None

    return attention_changed(attention, mask)


@dataclass
class Watched:
    """What an LLM asks of attention in a pass: how often, and how far back it may look."""

    calls: int = 0
    farthest: float = float("inf")

    def watching(self) -> AbstractContextManager[None]:
        """Count while it lasts."""

        def attention(attend: Attention) -> Attention:
            def counted(*given: Any, **named: Any) -> tuple[Tensor, Any]:
                self.calls += 1
                return attend(*given, **named)

            return counted

        def mask(make_mask: Mask) -> Mask:
            def looked_at(*given: Any, **named: Any) -> Any:
                window = named.get("local_size")
                self.farthest = min(self.farthest, float("inf") if window is None else float(window))
                return make_mask(*given, **named)

            return looked_at

        return attention_changed(attention, mask)


@torch.no_grad()
def longest_in_row(read: Callable[[Tensor, Documents | None], Tensor], layers: int, device: torch.device) -> float:
    """The most tokens of a text that an LLM reads right in a row of several; 0 where it reads none so.

    Args:
        read: its last hidden states [B, T, H] of tokens int64 [B, T], padded or, where documents are given, in one row.
        layers: transformer layers, each of which must attend by torch.
        device: of the LLM.
    """
    lengths = sorted(TRIED, reverse=True)
    texts = [1 + torch.arange(length) * (row + 1) % 13 for row, length in enumerate(lengths)]
    padded = nn.utils.rnn.pad_sequence(texts, batch_first=True).to(device)
    watched = Watched()
    with watched.watching():
        in_rows = read(padded, None)
    if watched.calls != layers:
        return 0.0
    alone = [read(text.unsqueeze(0).to(device), None)[0].float() for text in texts]
    try:
        together = read(torch.cat(texts).unsqueeze(0).to(device), Documents.of(lengths, device))[0].float()
    except (RuntimeError, ValueError, TypeError, IndexError):  # as one that takes no positions
        return 0.0
    own = [states[:length].float() for states, length in zip(in_rows, lengths, strict=True)]
    rounded = max(distance(one, other) for one, other in zip(own, alone, strict=True))
    away = max(distance(one, other) for one, other in zip(together.split(lengths), alone, strict=True))
    return watched.farthest if away <= TIMES * rounded + SHARE else 0.0


def distance(states: Tensor, others: Tensor) -> float:
    """The largest difference of a token's states [T, H] from the others', as a share of their length."""
    return float(((states - others).norm(dim=1) / others.norm(dim=1)).max())
