"""Ranks of a ranking teacher against loops over single samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_teachers import CONTEXT, history_of, plain_teacher, seen_by, small, small_backbone, tiny_teacher

from recdistill.data.samples import Samples
from recdistill.data.some_users import of_some_users
from recdistill.students.measure import KEPT
from recdistill.teachers.ranking import teacher as module
from recdistill.teachers.ranking.ranks import joined, ranks_of_samples


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(module, "TOKENS_A_BATCH", 100)


@pytest.fixture(scope="module", params=["leave-one-out", "chronological"])
def data(request, tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"), split=request.param)


@pytest.mark.parametrize("split", ["user-holdout", "chronological"])
@pytest.mark.parametrize("packing", [True, False])
def test_ranks_among_new_items_are_those_of_a_loop(tmp_path, split, packing):
    data = small(tmp_path, split=split, new_items=0.3)
    teacher = plain_teacher(data, small_backbone(data), packing=packing)
    validation, test, _ = ranks_of_samples(teacher, None)
    parts = ((validation, data.validation, data.new_validation), (test, data.test, data.new_test))
    for found, samples, new in parts:
        assert 0 < np.isin(samples.targets, new).sum() < len(samples)
        for sample, target in enumerate(samples.targets.tolist()):
            scores = teacher.model.scores(history_of(samples, sample))
            better = [item for item in new.tolist() if item != target and scores[item] >= scores[target]]
            assert found.among[sample] == (1 + len(better) if target in new else 0)
            left_out = seen_by(samples, sample, True) | {target}
            others = [item for item in range(data.num_items) if item not in left_out and scores[item] >= scores[target]]
            if target not in seen_by(samples, sample, True):
                assert found.ranks[sample] == 1 + len(others)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("packing", [True, False])
def test_ranks_are_those_of_a_loop(data, exclude_seen, packing):
    teacher = plain_teacher(data, small_backbone(data), exclude_seen=exclude_seen, packing=packing)
    validation, test, seconds = ranks_of_samples(teacher, None)
    assert seconds > 0
    for found, samples in ((validation, data.validation), (test, data.test)):
        assert len(found.ranks) == len(samples)
        assert found.best.shape == (len(samples), KEPT)
        for sample, target in enumerate(samples.targets.tolist()):
            scores = teacher.model.scores(history_of(samples, sample))
            seen = seen_by(samples, sample, exclude_seen)
            others = set(range(data.num_items)) - seen - {target}
            better = [item for item in others if scores[item] >= scores[target]]
            assert found.ranks[sample] == (data.num_items + 1 if target in seen else 1 + len(better))
            kept = sorted(set(range(data.num_items)) - seen, key=lambda item: -scores[item])[:KEPT]
            assert found.best[sample].tolist() == kept


def test_ranks_of_the_llm_are_those_of_each_prompt_alone(tmp_path):
    data = small(tmp_path, max_users=8)
    student = small_backbone(data, length=30)
    teacher = tiny_teacher(data, student)
    found, model = ranks_of_samples(teacher, None), teacher.model
    for part, (of_part, samples) in enumerate(zip(found[:2], (data.validation, data.test), strict=True)):
        for sample, target in enumerate(samples.targets.tolist()):
            if target in history_of(samples, sample):
                assert of_part.ranks[sample] == data.num_items + 1
                continue
            history = torch.tensor([history_of(samples, sample)])
            last = torch.tensor([history.shape[1] - 1])
            states = student(
                history, last + 1, torch.zeros_like(torch.arange(history.shape[1])), torch.arange(history.shape[1])
            )
            # Packed, with a token's own gate; a test sample's prompt has the title before its validation's, too.
            model.shape = replace(model.shape, context=CONTEXT + part)
            with torch.no_grad():
                logits = model(history, torch.tensor([0]), last, states.unsqueeze(0))[0][0]
            left_out = seen_by(samples, sample, True) | {target}
            margin = torch.tensor(
                [logits[item] - logits[target] for item in range(data.num_items) if item not in left_out]
            )
            assert of_part.ranks[sample] == 1 + int((margin >= 0).sum()) or float(margin.abs().min()) < 1e-4


def test_a_sample_has_the_rank_that_it_has_among_those_of_all_users(tmp_path):
    data = small(tmp_path, split="chronological")
    student = small_backbone(data, length=30)
    whole = ranks_of_samples(tiny_teacher(data, student, teacher_window=30), None)
    strides = set()
    for number in (1, 2, 3, 4, 5):
        some = of_some_users(data, number)
        users = np.concatenate([some.validation.user, some.test.user])
        strides.add(-(-len(users) // len(np.unique(users))))
        found = ranks_of_samples(tiny_teacher(some, student, teacher_window=30), None)
        for of_some, of_all, samples in zip(found[:2], whole[:2], (data.validation, data.test), strict=True):
            of_users = np.isin(samples.user, np.concatenate([some.validation.user, some.test.user]))
            assert of_some.ranks.tolist() == of_all.ranks[torch.from_numpy(of_users)].tolist()
    # Users differ in how many samples they have: a mean over some is not that over all.
    assert len(strides) > 1


def test_joined_keeps_targets_that_stand_apart():
    items = np.arange(100, 112)
    first = Samples(items, [0, 0], [3, 4], [0, 0], [7, 104])
    second = Samples(items, [0], [4], [0], [8])
    both, order = joined(first, second)
    assert both.targets[np.argsort(order)].tolist() == [7, 104, 8]


@pytest.mark.parametrize("shared", [True, False])
def test_joined_is_both_in_order_of_user_and_time(shared):
    items = np.arange(100, 112)
    first = Samples(items, [0, 6, 0], [3, 8, 4], [0, 1, 0])
    second = Samples(items if shared else items + 50, [6, 0], [9, 5], [1, 0])
    both, order = joined(first, second)
    expected = [(history_of(s, i), int(s.targets[i]), int(s.user[i])) for s in (first, second) for i in range(len(s))]
    found = [(history_of(both, i), int(both.targets[i]), int(both.user[i])) for i in range(len(both))]
    assert [found[place] for place in np.argsort(order)] == expected
    assert [expected[place] for place in order] == found
    starts = list(zip(both.start, both.end, strict=True))
    assert starts == sorted(starts)
    assert len(both.items) == (12 if shared else 24)
