"""Packed prompts: a causal LLM that reads a history once has the state after every title of it.

A prompt is the instruction, then each title followed by its *marker*, one token whose input embedding is the
projected backbone embedding of the item (LLaRA, iLoRA). The last hidden state at the marker of a sample's last
history item scores its next item. Nothing after a marker reaches it, so one pass over a window answers all of the
window's samples; `one_prompt_a_sample` is the paper's form, each sample with a prompt of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recdistill.teachers.ilora.documents import BLOCK, groups_of
from recdistill.teachers.ilora.titles import Int64Array, TitleTokens

#: Share of a group that may be padding. In training a group costs more beside its tokens: each operation is recorded,
#: and each new number of tokens has a CPU compile its products anew, so that fewer, larger groups of few widths pay.
MOST_PADDING, MOST_PADDING_IN_TRAINING = 0.1, 1 / 3
WIDTHS_IN_TRAINING = 16


@dataclass(frozen=True, eq=False)
class Prompts:
    """W prompts of T tokens at most.

    Attributes:
        tokens: int64 [W, T], right-padded. At a marker stands the padding token, whose embedding is replaced.
        column: int64 [W, T], the history column of the title or marker at hand, -1 for instruction and padding.
        marker: bool [W, T].
        length: int64 [W], real tokens of each prompt.
        row, position: int64 [S] each; sample s is predicted from the state at ``(row[s], position[s])``.
    """

    tokens: Tensor
    column: Tensor
    marker: Tensor
    length: Tensor
    row: Tensor
    position: Tensor

    def by_length(self, training: bool = False) -> list[tuple[Tensor, int]]:
        """Prompts to compute together: the rows of each group, int64, and its width.

        A tenth is padding at most; in ``training`` a third, and widths are multiples of `WIDTHS_IN_TRAINING`.
        """
        if training:
            most, groups = self.tokens.shape[1], self._grouped(MOST_PADDING_IN_TRAINING)
            return [(rows, min(most, -(-width // WIDTHS_IN_TRAINING) * WIDTHS_IN_TRAINING)) for rows, width in groups]
        return self._grouped(MOST_PADDING)

    def _grouped(self, most_padding: float) -> list[tuple[Tensor, int]]:
        order = torch.argsort(self.length, descending=True, stable=True)
        groups = groups_of(self.length[order].tolist(), most_padding)
        rows = order.split([count for count, _ in groups])
        return [(of_group, width) for of_group, (_, width) in zip(rows, groups, strict=True)]

    def in_one_row(self) -> "OneRow":
        """All prompts one after the other, without padding, the longest first."""
        order = torch.argsort(self.length, descending=True, stable=True)
        lengths = self.length[order]
        row = order.repeat_interleave(lengths)
        begin = lengths.cumsum(0) - lengths
        within = torch.arange(len(row)) - begin.repeat_interleave(lengths)
        begin_of = torch.empty_like(begin).index_put((order,), begin)
        filled = -len(row) % BLOCK
        return OneRow(
            lengths=lengths.tolist() + [1] * filled,
            tokens=torch.cat([self.tokens[row, within], self.tokens.new_full((filled,), self.tokens[0, 0].item())]),
            prompt=torch.cat([row, row.new_zeros(filled)]),
            column=torch.cat([self.column[row, within], self.column.new_full((filled,), -1)]),
            marker=torch.cat([self.marker[row, within], self.marker.new_zeros(filled)]),
            begin=begin,
            order=order,
            sample=begin_of[self.row] + self.position,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens that budgets count: those of the groups of scoring, their padding included, in training too."""
        return sum(len(rows) * width for rows, width in self.by_length())


@dataclass(frozen=True, eq=False)
class OneRow:
    """W prompts one after the other in one row of N tokens, and after them texts of one token that fill a block.

    Attributes:
        lengths: of the texts.
        tokens, column, marker: [N] each, as in `Prompts`.
        prompt: int64 [N], which prompt a token is of.
        begin: int64 [W], where each prompt begins, in the order of the row.
        order: int64 [W], the prompts in that order.
        sample: int64 [S], where the state of each sample is.
    """

    lengths: list[int]
    tokens: Tensor
    prompt: Tensor
    column: Tensor
    marker: Tensor
    begin: Tensor
    order: Tensor
    sample: Tensor


def packed_prompts(titles: TitleTokens, history: Tensor, row: Tensor, column: Tensor, context: int) -> Prompts:
    """One prompt a window: from ``context - 1`` titles before its first sample to its last sample's last item.

    Args:
        titles: the catalogue.
        history: item ids int64 [W, L], right-padded.
        row, column: int64 [S] each; sample s stands at ``column[s]`` of window ``row[s]``. Every window has one.
        context: history titles that a sample has in its prompt at least, where its window holds them.

    Raises:
        ValueError: a window has no sample, or ``context`` is below 1.
    """
    if context < 1:
        raise ValueError(f"context={context}: must be at least 1")
    windows = len(history)
    rows, columns, items = row.numpy(), column.numpy(), history.numpy()
    first = np.full(windows, items.shape[1], dtype=np.int64)
    last = np.full(windows, -1, dtype=np.int64)
    np.minimum.at(first, rows, columns)
    np.maximum.at(last, rows, columns)
    if np.any(last < 0):
        raise ValueError("a window has no sample")
    first = np.maximum(first - context + 1, 0)
    return lay_out(titles, items, first, last, rows, columns)


def one_prompt_a_sample(titles: TitleTokens, history: Tensor, row: Tensor, column: Tensor, context: int) -> Prompts:
    """A prompt for each sample alone: its last ``context`` titles; arguments as in `packed_prompts`."""
    return packed_prompts(titles, history[row], torch.arange(len(row)), column, context)


def lay_out(
    titles: TitleTokens, items: Int64Array, first: Int64Array, last: Int64Array, rows: Int64Array, columns: Int64Array
) -> Prompts:
    """Prompts over ``items[w, first[w]:last[w] + 1]``."""
    head = len(titles.instruction)
    count = last - first + 1  # [W] titles of each prompt
    window = np.repeat(np.arange(len(items)), count)
    of_title = first[window] + np.arange(len(window)) - np.repeat(np.cumsum(count) - count, count)
    item = items[window, of_title]
    size = titles.lengths[item] + 1  # the title and its marker
    ends = np.cumsum(size)
    window_end = ends[np.cumsum(count) - 1]
    window_begin = np.concatenate([np.zeros(1, dtype=np.int64), window_end[:-1]])
    title_begin = ends - size - window_begin[window] + head
    marker_at = title_begin + size - 1
    length = head + window_end - window_begin
    width = int(length.max())

    tokens = np.full((len(items), width), titles.padding, dtype=np.int64)
    column = np.full((len(items), width), -1, dtype=np.int64)
    marker = np.zeros((len(items), width), dtype=bool)
    tokens[:, :head] = titles.instruction
    title = np.repeat(np.arange(len(item)), size)
    within = np.arange(len(title)) - np.repeat(ends - size, size)
    place = (window[title], title_begin[title] + within)
    column[place] = of_title[title]
    is_text = within < size[title] - 1
    source = titles.start[item[title]] + within
    tokens[place[0][is_text], place[1][is_text]] = titles.tokens[source[is_text]]
    marker[window, marker_at] = True

    position_of = np.zeros(items.shape, dtype=np.int64)
    position_of[window, of_title] = marker_at
    return Prompts(
        tokens=torch.from_numpy(tokens),
        column=torch.from_numpy(column),
        marker=torch.from_numpy(marker),
        length=torch.from_numpy(length),
        row=torch.from_numpy(rows.copy()),
        position=torch.from_numpy(position_of[rows, columns]),
    )
