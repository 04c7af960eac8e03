"""Candidate prompts as text, where their markers and labels stand, and how rows are padded."""

import numpy as np
import pytest
import torch
from tiny_llm import tiny_tokenizer

from recdistill.teachers.generative.candidate_prompts import (
    NO_ITEM,
    NO_LABEL,
    answer_prompts,
    prompt_tokens,
    training_prompts,
)
from recdistill.teachers.generative.prompt_templates import prompt_templates

TITLES = ["Toy Story (1995)", "Heat", "Star Wars (1977)", "Twelve Monkeys (1995)", "Casino, the film", "Se7en"]
HISTORIES = [np.array([2, 0, 3]), np.array([1])]
CANDIDATES = np.array([[4, 1, 5], [0, 2, 4]])
TARGETS = [1, 4]


@pytest.fixture(params=[False, True])
def tokenizer(request):
    return tiny_tokenizer(begin=request.param)


def expected_text(history, candidates, template):
    head, middle, tail = prompt_templates("movie")[template]
    listed = ("".join(f" {TITLES[item]}," for item in items) for items in (history, candidates))
    return f"{head}{next(listed)}{middle}{next(listed)}{tail}"


@pytest.mark.parametrize("template", [0, 1, 2])
def test_a_prompt_of_text_alone_is_a_list_of_titles(tokenizer, template):
    parts = prompt_tokens(tokenizer, TITLES, "movie")
    prompts = answer_prompts(parts, HISTORIES, CANDIDATES, [template, template])
    for row in range(2):
        text = tokenizer.decode(prompts.tokens[row, prompts.real[row]], skip_special_tokens=True)
        assert text == expected_text(HISTORIES[row], CANDIDATES[row], template)


def test_only_the_head_begins_with_the_tokenizers_first_token():
    parts = prompt_tokens(tiny_tokenizer(begin=True), TITLES, "movie")
    prompts = answer_prompts(parts, HISTORIES, CANDIDATES, [0, 1])
    for row in range(2):
        assert (prompts.tokens[row, prompts.real[row]] == 0).nonzero().squeeze(1).tolist() == [0]


def test_every_title_has_its_marker_after_it(tokenizer):
    parts = prompt_tokens(tokenizer, TITLES, "movie")
    prompts = answer_prompts(parts, HISTORIES, CANDIDATES, [0, 1])
    for row in range(2):
        places = (prompts.item[row] != NO_ITEM).nonzero().squeeze(1)
        assert prompts.item[row, places].tolist() == [*HISTORIES[row], *CANDIDATES[row]]
        assert set(prompts.tokens[row, places].tolist()) == {parts.placeholder}
        for place in places.tolist():
            title = parts.title(int(prompts.item[row, place]))
            assert prompts.tokens[row, place - len(title) : place].tolist() == title.tolist()


def test_answers_are_padded_for_on_the_left_and_have_no_label(tokenizer):
    prompts = answer_prompts(prompt_tokens(tokenizer, TITLES, "movie"), HISTORIES, CANDIDATES, [0, 0])
    assert bool(prompts.real[:, -1].all())
    assert not bool(prompts.real[1, 0])
    assert bool((prompts.real.long().diff(dim=1) >= 0).all())
    assert bool((prompts.labels == NO_LABEL).all())
    assert len(prompts) == 2
    assert torch.equal(prompts.rows(slice(1, 2)).tokens, prompts.tokens[1:])


def test_labels_are_the_answers_title_and_a_newline_alone(tokenizer):
    parts = prompt_tokens(tokenizer, TITLES, "movie")
    prompts = training_prompts(parts, HISTORIES, CANDIDATES, [0, 2], TARGETS)
    waiting = answer_prompts(parts, HISTORIES, CANDIDATES, [0, 2])
    assert bool((prompts.real.long().diff(dim=1) <= 0).all())
    for row, target in enumerate(TARGETS):
        labelled = prompts.labels[row] != NO_LABEL
        assert tokenizer.decode(prompts.labels[row, labelled]) == f" {TITLES[target]}\n"
        assert torch.equal(prompts.labels[row, labelled], prompts.tokens[row, labelled])
        before = prompts.real[row] & ~labelled
        assert torch.equal(prompts.tokens[row, before], waiting.tokens[row, waiting.real[row]])
        assert torch.equal(prompts.item[row, before], waiting.item[row, waiting.real[row]])
        # The answer is the last that is real, and no marker stands in it.
        assert labelled.nonzero().max() == prompts.real[row].nonzero().max()
        assert bool((prompts.item[row, labelled] == NO_ITEM).all())


def test_padding_on_either_side_is_the_padding_token(tokenizer):
    parts = prompt_tokens(tokenizer, TITLES, "item")
    for prompts in (
        answer_prompts(parts, HISTORIES, CANDIDATES, [0, 0]),
        training_prompts(parts, HISTORIES, CANDIDATES, [0, 0], TARGETS),
    ):
        assert not bool(prompts.real.all())
        assert set(prompts.tokens[~prompts.real].tolist()) == {parts.titles.padding}
        assert set(prompts.item[~prompts.real].tolist()) == {NO_ITEM}
        assert set(prompts.labels[~prompts.real].tolist()) == {NO_LABEL}
