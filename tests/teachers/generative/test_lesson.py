"""What a generative teacher is trained on: prompts drawn anew, the curriculum, parts of batches."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_generative import generative_config, tiny_causal_llm

from recdistill.errors import InputError
from recdistill.teachers.generative.candidate_prompts import NO_ITEM, NO_LABEL
from recdistill.teachers.generative.lesson import NumberedBatch, generative_lesson
from recdistill.teachers.generative.teacher import GenerativeTeacher
from recdistill.teachers.schedule import curve_of

OPTIONS = {"tokens_per_batch": 600, "teacher_history": 4}


@pytest.fixture
def made(data, backbone):
    """An untrained teacher of some options."""

    def make(**changes):
        torch.manual_seed(0)
        return GenerativeTeacher.build(generative_config(**(OPTIONS | changes)), tiny_causal_llm(), backbone, data)

    return make


def forwards(monkeypatch, teacher):
    """A list that gets what the model is asked; it answers nothing."""
    asked = []

    def forward(prompts, states, injected):
        asked.append(SimpleNamespace(prompts=prompts, states=states, injected=injected))
        teacher.model.sample_gates = torch.full((len(prompts), 4), 0.25)
        return torch.zeros(())

    monkeypatch.setattr(teacher.model, "forward", forward)
    return asked


def taken(lesson, number):
    return [batch for batch, _ in zip(lesson.batches(), range(number), strict=False)]


def test_item_embeddings_come_into_ever_more_batches(made, monkeypatch):
    teacher = made()
    asked = forwards(monkeypatch, teacher)
    lesson = generative_lesson(teacher, 120)
    for batch in taken(lesson, 120):
        losses = lesson.step(batch)
        assert float(losses["injected"]) == asked[-1].injected
    injected = [one.injected for one in asked]
    thirds = [sum(injected[begin : begin + 40]) for begin in (0, 40, 80)]
    # Expected 7, 20 and 33.
    assert thirds[0] < 15 < thirds[1] < 27 < thirds[2]
    plain = made(curriculum=False)
    asked = forwards(monkeypatch, plain)
    for batch in taken(lesson, 5):
        generative_lesson(plain, 120).step(batch)
    assert [one.injected for one in asked] == [True] * 5


def template_of(parts, tokens):
    heads = [head.tolist() for head, _, _ in parts.templates]
    return next(number for number, head in enumerate(heads) if tokens[: len(head)].tolist() == head)


def test_prompts_are_those_of_the_samples_with_candidates_drawn_anew(made, monkeypatch):
    teacher = made()
    asked = forwards(monkeypatch, teacher)
    lesson, train = generative_lesson(teacher, 10), teacher.data.train
    batches = taken(lesson, 80)
    templates, offered = set(), {}
    parts = teacher.model.parts
    for batch in batches:
        lesson.step(batch)
        prompts = asked[-1].prompts
        own = {template_of(parts, row) for row in prompts.tokens}
        assert len(own) == 1
        templates |= own
        torch.testing.assert_close(asked[-1].states, teacher.states(batch.batch))
        for row, sample in enumerate(batch.batch.sample.tolist()):
            history = train.items[train.start[sample] : train.end[sample]].tolist()
            target = int(train.targets[sample])
            items = prompts.item[row][prompts.item[row] != NO_ITEM].tolist()
            listed, candidates = items[:-5], items[-5:]
            assert listed == history[-teacher.config.teacher_history :]
            assert target in candidates
            assert not (set(candidates) - {target}) & set(history)
            labels = prompts.labels[row][prompts.labels[row] != NO_LABEL]
            assert labels.tolist() == parts.answer(target).tolist()
            offered.setdefault(sample, []).append(candidates)
    assert templates == {0, 1, 2}
    twice = [rows for rows in offered.values() if len(rows) > 1]
    assert twice
    assert any(rows[0] != rows[1] for rows in twice)


def test_a_lesson_is_the_same_each_time(made, monkeypatch):
    teacher = made()
    asked = forwards(monkeypatch, teacher)
    lesson = generative_lesson(teacher, 10)
    for _ in range(2):
        for batch in taken(lesson, 6):
            lesson.step(batch)
    for first, second in zip(asked[:6], asked[6:], strict=True):
        assert torch.equal(first.prompts.tokens, second.prompts.tokens)
        assert first.injected == second.injected


def test_batches_have_about_the_tokens_of_the_options(made):
    teacher = made(tokens_per_batch=1500)
    lesson = generative_lesson(teacher, 40)
    sizes = [lesson.size(batch) for batch in taken(lesson, 40)]
    assert sum(size["tokens"] for size in sizes) / 40 == pytest.approx(1500, rel=0.2)
    assert all(size["samples"] >= 1 for size in sizes)


def test_parts_of_a_batch_make_the_prompts_of_the_whole(made, monkeypatch):
    teacher = made(tokens_per_batch=1500)
    asked = forwards(monkeypatch, teacher)
    lesson = generative_lesson(teacher, 10)
    whole = taken(lesson, 3)[2]
    assert len(whole) > 2
    lesson.step(whole)
    parts = [lesson.divide(whole, index, 2) for index in range(2)]
    assert sum(share for _, share in parts) == pytest.approx(1)
    rows = []
    for part, _ in parts:
        assert isinstance(part, NumberedBatch)
        lesson.step(part)
        kept = [row[real].tolist() for row, real in zip(asked[-1].prompts.tokens, asked[-1].prompts.real, strict=True)]
        rows += zip(part.batch.sample.tolist(), kept, strict=True)
    expected = [row[real].tolist() for row, real in zip(asked[0].prompts.tokens, asked[0].prompts.real, strict=True)]
    assert sorted(rows) == sorted(zip(whole.batch.sample.tolist(), expected, strict=True))


def test_parts_of_a_batch_have_their_parts_of_the_gradient(made):
    teacher = made(tokens_per_batch=1500)
    with torch.no_grad():
        for parameter in teacher.model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    lesson = generative_lesson(teacher, 1)
    whole = taken(lesson, 1)[0]
    assert len({len(teacher.model.parts.answer(item)) for item in whole.batch.target.tolist()}) > 1

    def gradient(parts):
        teacher.model.zero_grad()
        for part, share in parts:
            (share * lesson.step(part)["total"]).backward()
        return torch.cat([p.grad.flatten() for p in teacher.model.parameters() if p.requires_grad])

    expected = gradient([(whole, 1.0)])
    for count in (2, 50):
        found = gradient([lesson.divide(whole, index, count) for index in range(count)])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_the_curriculum_is_as_long_as_the_training(made, monkeypatch):
    teacher = made(token_budget=6000)
    asked = forwards(monkeypatch, teacher)
    total = math.prod(curve_of(teacher.config))
    lesson = teacher.lesson()
    batches = taken(lesson, total)
    lesson.step(batches[-1])
    assert asked[-1].injected
    expected = generative_lesson(teacher, total)
    for batch in batches:
        assert lesson.step(batch)["injected"] == expected.step(batch)["injected"]


def test_more_candidates_than_the_catalogue_leaves_are_refused(made):
    lesson = made(candidates=39).lesson()
    with pytest.raises(InputError, match="candidates=39: a history leaves only"):
        lesson.step(next(lesson.batches()))
