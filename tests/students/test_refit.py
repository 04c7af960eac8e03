"""Students trained again on all interactions: which samples, which rates, and which of them a teacher knows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from text_students import SMALL, KilledRecorder, of_data

from recdistill.config import BaselineConfig, DistillConfig
from recdistill.data.all_interactions import all_as_training, joined
from recdistill.data.samples import Samples
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.students.build import shape_of
from recdistill.students.refit import covering, of_epochs, refit_recommender
from recdistill.students.training import fit_recommender, student_plan
from recdistill.training.fit import fit
from recdistill.training.recorder import NoRecorder

PLAIN = {name: value for name, value in SMALL.items() if name not in ("item_init", "views")}


def test_all_samples_are_training_samples_and_training_s_come_first(ring_data):
    found = all_as_training(ring_data)
    parts = (ring_data.train, ring_data.validation, ring_data.test)
    assert len(found.train) == sum(map(len, parts))
    assert found.train.targets.tolist() == np.concatenate([part.targets for part in parts]).tolist()
    index = [0, len(ring_data.train), len(found.train) - 1]
    history, length = found.train.windows_of(index, 8, ring_data.num_items)
    own = [part.windows_of([place], 8, ring_data.num_items) for part, place in zip(parts, (0, 0, -1), strict=True)]
    assert history.tolist() == [one[0][0].tolist() for one in own]
    assert length.tolist() == [one[1][0] for one in own]
    assert (found.item_count >= ring_data.item_count).all()
    assert found.item_count.sum() == len(found.train)
    assert found.fingerprint == ring_data.fingerprint


def test_parts_of_their_own_items_and_targets_are_joined():
    one = Samples(np.array([1, 2, 3]), np.array([0, 0]), np.array([1, 2]), np.array([0, 0]))
    other = Samples(np.array([4, 5]), np.array([0]), np.array([2]), np.array([1]), np.array([9]))
    found = joined((one, other))
    assert found.targets.tolist() == [2, 3, 9]
    assert found.windows_of([0, 1, 2], 3, 7)[0].tolist() == [[1, 7, 7], [1, 2, 7], [4, 5, 7]]
    assert found.user.tolist() == [0, 0, 1]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_it_is_the_training_on_all_samples_without_a_choice(schedule, ring_data):
    config = BaselineConfig(**PLAIN | {"epochs": 6, "schedule": schedule})
    everything = all_as_training(ring_data)
    found, _ = refit_recommender(config, everything, 2, recorder=NoRecorder())
    rates, recorder = [], NoRecorder()
    model, plan = student_plan(config, everything, shape_of(config), None, recorder)

    def rate(step, steps):
        rates.append((step, steps))
        return 1.0 if plan.learning_rate is None else plan.learning_rate(step, plan.epochs * plan.num_batches)

    fit(replace(plan, epochs=2, validate=None, learning_rate=rate), recorder.work / "c.safetensors", lambda *_: None)
    weights = found.state_dict(), model.state_dict()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(rates) == 2 * plan.num_batches


def test_a_killed_refit_goes_on_to_the_same_student(ring_data, tmp_path):
    config, everything = BaselineConfig(**PLAIN | {"ema_decay": 0.9, "refit": True}), all_as_training(ring_data)
    expected, _ = refit_recommender(config, everything, 3, recorder=KilledRecorder(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        refit_recommender(config, everything, 3, recorder=KilledRecorder(tmp_path / "b", 1))
    found, _ = refit_recommender(config, everything, 3, recorder=KilledRecorder(tmp_path / "b"))
    weights = found.state_dict(), expected.state_dict()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_rate_goes_as_in_the_plan_that_was_cut(ring_data):
    config = BaselineConfig(**PLAIN | {"epochs": 8, "schedule": "linear"})
    _, plan = student_plan(config, ring_data, shape_of(config), None, NoRecorder())
    cut = of_epochs(plan, 3)
    for step in range(3 * plan.num_batches):
        expected = plan.learning_rate(step, 8 * plan.num_batches)
        assert cut.learning_rate(step, 3 * plan.num_batches) == pytest.approx(expected)


def test_the_teacher_s_answers_stay_with_their_samples(ring_data):
    samples, everything = len(ring_data.train), all_as_training(ring_data)
    covered = torch.arange(samples) % 2 == 0
    answers = TeacherAnswers(
        covered=covered, ranking=torch.arange(samples * 3).reshape(samples, 3) % 40, distance=torch.rand(samples, 3),
        item_embedding=torch.randn(ring_data.num_items, 6), sample=covered.nonzero().squeeze(1), covered_share=0.5,
    )  # fmt: skip
    found = covering(answers, len(everything.train))
    assert torch.equal(found.covered[:samples], covered)
    assert not found.covered[samples:].any()
    assert torch.equal(found.ranking[:samples], answers.ranking)
    assert len(found.ranking) == len(found.distance) == len(everything.train)
    assert found.covered_share == pytest.approx(0.5 * samples / len(everything.train))
    config = DistillConfig(**SMALL, refit=True, candidate_topk=3)
    texts = of_data(everything)
    distilled, _ = refit_recommender(config, everything, 1, recorder=NoRecorder(), teacher=answers, texts=texts)
    plain, _ = refit_recommender(config, everything, 1, recorder=NoRecorder(), texts=texts)
    assert not torch.equal(distilled.item_table(), plain.item_table())


def test_a_closed_form_is_fitted_to_all_samples(ring_data):
    config, everything = BaselineConfig(student="ease"), all_as_training(ring_data)
    found, shape = refit_recommender(config, everything, 1, recorder=NoRecorder())
    before = fit_recommender(config, ring_data, recorder=NoRecorder()).model
    assert shape.student == "ease"
    history, length = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    assert not torch.equal(found.scores(history, length), before.scores(history, length))


def test_what_measures_does_not_refit(ring_data):
    with pytest.raises(InputError, match=r"^refit=true: measures nothing"):
        fit_recommender(BaselineConfig(refit=True), ring_data, recorder=NoRecorder())
    with pytest.raises(InputError, match=r"^refit=true: new_items=0.1 takes items out of training"):
        BaselineConfig(refit=True, new_items=0.1)
