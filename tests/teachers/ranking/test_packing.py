"""Prompts against a loop that puts them together one title at a time."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.teachers.ilora.titles import TitleTokens
from recdistill.teachers.ranking.packing import (
    MOST_PADDING,
    MOST_PADDING_IN_TRAINING,
    WIDTHS_IN_TRAINING,
    Prompts,
    one_prompt_a_sample,
    packed_prompts,
)

PADDING = 0


def make_titles(lengths, instruction=2):
    """Titles of these lengths; item i's tokens are 100 i + 10, 100 i + 11, ..."""
    tokens = [100 * item + 10 + place for item, length in enumerate(lengths) for place in range(length)]
    return TitleTokens(
        tokens=np.array(tokens, dtype=np.int64),
        start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        instruction=np.arange(1, instruction + 1),
        padding=PADDING,
    )


def naive(titles, items, first, last):
    """Tokens, columns and markers of one prompt over ``items[first:last + 1]``, as lists."""
    tokens, columns, markers = list(titles.instruction), [-1] * len(titles.instruction), []
    for column in range(first, last + 1):
        item = items[column]
        title = titles.tokens[titles.start[item] : titles.start[item + 1]].tolist()
        tokens += [*title, PADDING]
        columns += [column] * (len(title) + 1)
        markers.append(len(tokens) - 1)
    return tokens, columns, markers


@st.composite
def problems(draw):
    """Titles, right-padded windows [W, L], samples at some of their columns, and a context."""
    num_items = draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(1, 4), min_size=num_items, max_size=num_items))
    length = draw(st.integers(1, 6))
    windows, rows, columns = [], [], []
    for row in range(draw(st.integers(1, 5))):
        real = draw(st.integers(1, length))
        windows.append([draw(st.integers(0, num_items - 1)) for _ in range(real)] + [num_items] * (length - real))
        for column in sorted(draw(st.sets(st.integers(0, real - 1), min_size=1))):
            rows.append(row)
            columns.append(column)
    order = draw(st.permutations(range(len(rows))))
    return (
        make_titles(lengths, draw(st.integers(0, 3))),
        torch.tensor(windows),
        torch.tensor(rows)[list(order)],
        torch.tensor(columns)[list(order)],
        draw(st.integers(1, length + 2)),
    )


def check(prompts: Prompts, row, expected):
    tokens, columns, markers = expected
    length = len(tokens)
    width = prompts.tokens.shape[1]
    assert prompts.length[row] == length
    assert prompts.tokens[row].tolist() == tokens + [PADDING] * (width - length)
    assert prompts.column[row].tolist() == columns + [-1] * (width - length)
    assert prompts.marker[row].nonzero().squeeze(1).tolist() == markers


@given(problems())
def test_packed_prompts_are_those_of_the_loop(problem):
    titles, history, row, column, context = problem
    prompts = packed_prompts(titles, history, row, column, context)
    longest = 0
    for window, items in enumerate(history.tolist()):
        of_window = column[row == window].tolist()
        first = max(0, min(of_window) - context + 1)
        expected = naive(titles, items, first, max(of_window))
        check(prompts, window, expected)
        longest = max(longest, len(expected[0]))
        for sample in (row == window).nonzero().squeeze(1).tolist():
            # Predicted from the marker of its own last item, with the context asked for where the window has it.
            assert prompts.position[sample] == expected[2][column[sample] - first]
            assert column[sample] - first + 1 >= min(context, column[sample] + 1)
    assert prompts.tokens.shape[1] == longest
    assert torch.equal(prompts.row, row)


@given(problems())
def test_one_prompt_a_sample_ends_at_its_last_item(problem):
    titles, history, row, column, context = problem
    prompts = one_prompt_a_sample(titles, history, row, column, context)
    assert prompts.row.tolist() == list(range(len(row)))
    for sample, (window, last) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
        expected = naive(titles, history[window].tolist(), max(0, last - context + 1), last)
        check(prompts, sample, expected)
        assert prompts.position[sample] == prompts.length[sample] - 1 == expected[2][-1]


@given(problems(), st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_groups_hold_each_prompt_once_and_little_padding(problem, lengths):
    titles, history, row, column, context = problem
    made = packed_prompts(titles, history, row, column, context)
    anything = torch.zeros(len(lengths), 60, dtype=torch.int64)
    drawn = Prompts(
        tokens=anything,
        column=anything,
        marker=anything.bool(),
        length=torch.tensor(lengths),
        row=torch.zeros(0, dtype=torch.int64),
        position=torch.zeros(0, dtype=torch.int64),
    )
    for prompts, training in itertools.product((made, drawn), (False, True)):
        groups = prompts.by_length(training)
        most, widths = (MOST_PADDING_IN_TRAINING, WIDTHS_IN_TRAINING) if training else (MOST_PADDING, 1)
        assert sorted(torch.cat([rows for rows, _ in groups]).tolist()) == list(range(len(prompts.length)))
        for rows, width in groups:
            inside = prompts.length[rows]
            longest = int(inside.max())
            assert longest <= width <= min(longest + widths - 1, prompts.tokens.shape[1])
            assert width % widths == 0 or width == prompts.tokens.shape[1]
            assert int(inside.sum()) >= (1 - most) * longest * len(rows) - 1e-9
        if not training:
            assert prompts.num_tokens == sum(width * len(rows) for rows, width in groups)


def test_prompts_of_like_length_are_one_group():
    titles = make_titles([3, 3, 3])
    prompts = packed_prompts(titles, torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.arange(3), torch.ones(3).long(), 2)
    assert [(rows.tolist(), width) for rows, width in prompts.by_length()] == [([0, 1, 2], 10)]


def test_a_packed_window_costs_one_pass():
    titles = make_titles([4] * 8)
    history = torch.arange(8).unsqueeze(0)
    row, column = torch.zeros(8, dtype=torch.int64), torch.arange(8)
    packed = packed_prompts(titles, history, row, column, 8).num_tokens
    assert packed == 2 + 8 * 5
    assert one_prompt_a_sample(titles, history, row, column, 8).num_tokens >= sum(2 + 5 * n for n in range(1, 9))


def test_a_window_without_a_sample_and_no_context_are_refused():
    titles, history = make_titles([1, 1]), torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="a window has no sample"):
        packed_prompts(titles, history, torch.tensor([1]), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="context=0"):
        packed_prompts(titles, history, torch.arange(2), torch.zeros(2).long(), 0)
