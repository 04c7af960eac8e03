"""Answers of a generative teacher, judged one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_teachers import LENGTH
from tiny_generative import generative_teacher

from recdistill.evaluation.answers import answer_metrics, candidate_named
from recdistill.teachers.generative import teacher as module
from recdistill.teachers.generative.candidate_prompts import answer_prompts
from recdistill.teachers.generative.judging import JUDGED, judged_answers, judged_parts

pytestmark = pytest.mark.usefixtures("_small_batches")


def test_a_sample_is_asked_the_same_whoever_else_is_asked(data, backbone, model):
    teacher, some = generative_teacher(data, backbone, model), data.test.subset([1, 4, 7])

    def asked(samples):
        (batch,) = module.batches(
            samples, length=LENGTH, batch_size=99, stride=1, padding_id=data.padding_id, seed=0, epoch=0, shuffle=False
        )
        states = teacher.states(batch)
        drawn = teacher.drawn_candidates(samples, batch, JUDGED)
        retrieved = teacher.retrieved_candidates(samples, batch, states)
        return drawn, retrieved, teacher.written(samples, batch, drawn, states)[0]

    for of_all, of_some in zip(asked(data.test), asked(some), strict=True):
        assert np.array_equal(np.asarray(of_all)[[1, 4, 7]], np.asarray(of_some))


def test_a_title_is_named_as_prompts_have_it(data, backbone):
    long = " ".join(f"w{word}" for word in range(40))
    named = replace(data, titles=(long, *data.titles[1:]))
    teacher = generative_teacher(named, backbone)
    read = teacher.titles_as_read
    assert read[1:] == list(data.titles[1:])
    assert long.startswith(read[0])
    assert len(read[0]) < len(long)
    assert candidate_named(f"{read[0]}\n", read) == 0


@pytest.mark.parametrize("answer", ["free", "constrained", "likelihood"])
def test_answers_are_judged_one_by_one(data, backbone, model, answer):
    teacher = generative_teacher(data, backbone, model, answer=answer)
    metrics, table = judged_answers(teacher, "test", data.test)
    named, right, of_backbone = [], [], []
    for batch in module.batches(
        data.test, length=LENGTH, batch_size=1, stride=1, padding_id=data.padding_id, seed=0, epoch=0, shuffle=False
    ):
        candidates = teacher.drawn_candidates(data.test, batch, JUDGED)
        texts, places = teacher.written(data.test, batch, candidates, teacher.states(batch))
        sample = int(batch.sample)
        assert table["answer"][sample] == texts[0]
        expected = data.item_ids[candidates[0, places[0]]] if places[0] >= 0 else None
        assert table["named"][sample] == expected
        assert table["title"][sample] == data.titles[data.test.targets[sample]]
        named.append(int(places[0]))
        right.append(candidates[0].tolist().index(int(batch.target)))
        scores = teacher.backbone.logits(teacher.states(batch))[0, torch.from_numpy(candidates[0])]
        of_backbone.append(int(scores.argmax()))
    expected = {f"test/{name}": value for name, value in answer_metrics(named, right, range(len(named))).items()}
    assert {name: metrics[name] for name in expected} == expected
    hits = np.mean([best == place for best, place in zip(of_backbone, right, strict=True)])
    assert metrics["test/backbone_hit_ratio_at_1"] == hits
    assert list(table["user"]) == list(data.user_ids)
    if answer == "free":
        # An untrained tiny llama writes no titles.
        assert metrics["test/valid_ratio"] < 1
    else:
        assert metrics["test/valid_ratio"] == 1
        assert set(table["answer"]) <= set(data.titles)


def test_prompts_have_a_template_by_sample_not_by_batch(data, backbone, model, monkeypatch):
    teacher, seen = generative_teacher(data, backbone, model), []

    def noted(parts, histories, candidates, template, users):
        seen.extend(template)
        return answer_prompts(parts, histories, candidates, template, users)

    monkeypatch.setattr(module, "answer_prompts", noted)
    judged_answers(teacher, "test", data.test)
    assert seen == [sample % 3 for sample in range(len(data.test))]


def test_both_parts_are_judged(data, backbone, model):
    teacher = generative_teacher(data, backbone, model, answer="likelihood")
    found = judged_parts(teacher)
    for part, samples in (("val", data.validation), ("test", data.test)):
        metrics, table = judged_answers(teacher, part, samples)
        assert {name: found.metrics[name] for name in metrics} == metrics
        assert found.tables[part].equals(table)
    assert found.metrics["ms_per_answer"] > 0
