"""Answers over the tiny llama against plain loops that read prompt and answer anew for every token."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_generative import (
    CANDIDATES,
    HISTORIES,
    TARGETS,
    TEMPLATE,
    TITLES,
    fresh,
    states,
    trained,
    waiting,
    with_answers,
)

from recdistill.teachers.generative import answers as module
from recdistill.teachers.generative.answers import (
    candidate_log_likelihoods,
    constrained_answers,
    free_answers,
    generated,
    most_answer_tokens,
    most_free_tokens,
    token_log_probs,
)
from recdistill.teachers.generative.candidate_prompts import answer_prompts
from recdistill.teachers.generative.reading import trusted_caches


@pytest.fixture(scope="module", params=[{}, {"gate_per_layer": True}])
def teacher(request):
    return trained(**request.param)


@torch.no_grad()
def logits_after(teacher, row, tokens):
    """Logits [W] after a prompt and some tokens, read alone, without padding and without cache."""
    prompts = waiting(teacher, slice(row, row + 1))
    words = teacher.llm.get_input_embeddings()
    embedded = teacher.embedded(prompts)
    if len(tokens):
        embedded = torch.cat([embedded, words(torch.tensor([tokens]))], dim=1)
    teacher.set_gates(states()[row : row + 1])
    return teacher.llm(inputs_embeds=embedded, use_cache=False).logits[0, -1]


def test_padded_prompts_are_written_on_as_each_alone(teacher):
    together = generated(teacher, waiting(teacher), states(), 6, [299])
    for row in range(3):
        written = []
        while len(written) < 6 and 299 not in written:
            written.append(int(logits_after(teacher, row, written).argmax()))
        assert together[row, : len(written)].tolist() == written


def test_the_gate_of_a_sequence_holds_while_it_writes(teacher):
    own, others = (
        [generated(teacher, waiting(teacher), given, 6, [299])[row].tolist() for row in range(3)]
        for given in (states(), states().roll(1, 0))
    )
    assert own != others


def test_a_free_answer_is_the_first_line_and_ends_at_it(teacher, monkeypatch):
    closing = teacher.parts.closing
    spelled = [teacher.tokenizer(text)["input_ids"] for text in (" Heat \nmore", "\n\nHeat", " He")]
    width = max(map(len, spelled))
    seen = {}

    def written(model, prompts, given, most, ends):
        seen.update(most=most, ends=ends)
        return torch.tensor([ids + [0] * (width - len(ids)) for ids in spelled])

    monkeypatch.setattr(module, "generated", written)
    assert free_answers(teacher, waiting(teacher), states()) == ["Heat", "Heat", "He"]
    assert seen["ends"] == [closing, 0]
    assert seen["most"] == most_free_tokens(teacher)


def test_free_answers_are_what_is_written(teacher):
    found = free_answers(teacher, waiting(teacher), states())
    most = most_free_tokens(teacher)
    for row, text in enumerate(found):
        written = []
        while len(written) < most and not {teacher.parts.closing, 0} & set(written):
            written.append(int(logits_after(teacher, row, written).argmax()))
        expected = teacher.tokenizer.decode(written, skip_special_tokens=True)
        assert text == expected.strip().partition("\n")[0].strip()


def test_a_constrained_answer_is_the_greedy_walk_over_the_candidates(teacher):
    found = constrained_answers(teacher, waiting(teacher), states(), CANDIDATES)
    for row in range(3):
        answers = [teacher.parts.answer(item).tolist() for item in CANDIDATES[row]]
        written = []
        while written not in answers:
            so_far = [answer for answer in answers if answer[: len(written)] == written]
            open_to = sorted({answer[len(written)] for answer in so_far})
            logits = logits_after(teacher, row, written)
            written.append(max(open_to, key=lambda token: float(logits[token])))
        assert found[row] == answers.index(written)


def test_of_candidates_with_one_title_the_first_answers(teacher):
    same = np.array([[7, 3, 3, 3]] * 3)
    found = constrained_answers(teacher, answer_prompts(teacher.parts, HISTORIES, same, TEMPLATE), states(), same)
    assert set(found.tolist()) <= {0, 1}


@torch.no_grad()
def log_likelihood(teacher, row, item):
    answer = torch.from_numpy(teacher.parts.answer(item))
    prompts = waiting(teacher, slice(row, row + 1))
    words = teacher.llm.get_input_embeddings()
    embedded = torch.cat([teacher.embedded(prompts), words(answer).unsqueeze(0)], dim=1)
    teacher.set_gates(states()[row : row + 1])
    logits = teacher.llm(inputs_embeds=embedded, use_cache=False).logits[0, -len(answer) - 1 : -1]
    return -F.cross_entropy(logits, answer)


@pytest.mark.parametrize("at_once", [1, 10**6])
def test_likelihoods_are_those_of_each_answer_read_alone(teacher, monkeypatch, at_once):
    monkeypatch.setattr(module, "REPEATED_TOKENS", at_once)
    found = candidate_log_likelihoods(teacher, waiting(teacher), states(), CANDIDATES)
    assert (found.shape, found.dtype) == ((3, 4), torch.float32)
    for row in range(3):
        for place, item in enumerate(CANDIDATES[row].tolist()):
            torch.testing.assert_close(found[row, place], log_likelihood(teacher, row, item), atol=1e-4, rtol=1e-4)


def test_a_prompt_is_read_once_for_all_its_candidates(monkeypatch):
    teacher, read = trained(), []
    assert trusted_caches(teacher) == (True, True)
    forward = teacher.llm.get_base_model().model.forward

    def counted(*args, **kwargs):
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        read.append(tuple(inputs.shape[:2]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(teacher.llm.get_base_model().model, "forward", counted)
    candidate_log_likelihoods(teacher, waiting(teacher), states(), CANDIDATES)
    assert read == [tuple(waiting(teacher).tokens.shape), (12, most_answer_tokens(teacher, CANDIDATES) - 1)]


@pytest.mark.slow
def test_what_was_learnt_is_answered_in_every_way():
    """A teacher fitted to three prompts names their targets."""
    teacher = fresh().train()
    optimizer = torch.optim.Adam([p for p in teacher.parameters() if p.requires_grad], lr=0.01)
    # At a mean loss below this, no token of the answers is less likely than all others together.
    sure = math.log(2) / sum(len(teacher.parts.answer(target)) for target in TARGETS)
    # The way there is rough, and other processors round it otherwise: by 200 steps all have come through.
    for _ in range(400):
        loss = teacher(with_answers(teacher), states())
        if float(loss.detach()) < sure:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < sure
    teacher.eval()
    places = [CANDIDATES[row].tolist().index(target) for row, target in enumerate(TARGETS)]
    assert free_answers(teacher, waiting(teacher), states()) == [TITLES[target] for target in TARGETS]
    assert constrained_answers(teacher, waiting(teacher), states(), CANDIDATES).tolist() == places
    assert candidate_log_likelihoods(teacher, waiting(teacher), states(), CANDIDATES).argmax(1).tolist() == places


def test_a_bfloat16_base_answers_in_every_way():
    teacher = trained(torch.bfloat16)
    precise = candidate_log_likelihoods(trained(), waiting(teacher), states(), CANDIDATES)
    low = candidate_log_likelihoods(teacher, waiting(teacher), states(), CANDIDATES)
    assert (low - precise).abs().max() < 0.3
    assert len(free_answers(teacher, waiting(teacher), states())) == 3
    assert len(constrained_answers(teacher, waiting(teacher), states(), CANDIDATES)) == 3


def test_log_probabilities_by_hand():
    logits = torch.log(torch.tensor([[[0.2, 0.3, 0.5]]]))
    expected = torch.log(torch.tensor([[0.5, 0.2]]))
    torch.testing.assert_close(token_log_probs(logits, torch.tensor([[2, 0]])), expected)
