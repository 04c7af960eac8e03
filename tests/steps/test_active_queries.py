"""Rounds of a teacher: each asks about samples that the student taught so far doubts."""

import json
from types import SimpleNamespace

import pytest
import torch
from fake_server import KEY, reversed_order, serving
from mlflow.tracking import MlflowClient
from workplace import run_step

from recdistill.config import DistillConfig
from recdistill.distillation.selection import query
from recdistill.errors import InputError
from recdistill.runs.finished_runs import finished_run, linked_run
from recdistill.runs.run import CONFIG_FILE
from recdistill.steps import estimate, student_start
from recdistill.steps.active_queries import left_to_ask, student_of_round
from recdistill.steps.distill import distill, teacher_of
from recdistill.steps.inputs import data_of, frozen_student, teacher_outputs_of
from recdistill.students.signals import signals_of_student
from recdistill.training.distributed import ALONE

STUDENT = {"hidden_size": 16, "blocks": 1, "max_length": 8, "epochs": 2, "batch_size": 64, "candidate_topk": 5}
#: Of a round, in LLM tokens.
BUDGET = 600


@pytest.fixture
def config_of(taught):
    """Options of a student whose teacher is asked a little in each round."""

    def make(**changes):
        options = taught.options | STUDENT | {"outputs_token_budget": BUDGET, "query_policy": "uncertainty"} | changes
        return DistillConfig(**{name: str(v) if name == "llm" else v for name, v in options.items()})

    return make


def rounds_of(run, client):
    """The teacher's runs that a student's run comes from, the last round first, with the student that asked in each."""
    teacher = client.get_run(run.run_id).data.tags["recdistill.teacher_run_id"]
    found = []
    while teacher:
        tags = client.get_run(teacher).data.tags
        found.append((finished_run(teacher, "teacher"), tags.get("recdistill.student_run_id", "")))
        teacher = tags.get("recdistill.teacher_run_id", "")
    return found


@pytest.mark.slow
def test_each_round_asks_what_its_student_doubts_most(config_of, client):
    config = config_of(rounds=3)
    data, run = data_of(config), distill(config)
    rounds = rounds_of(run, client)
    assert len(rounds) == 3
    outputs = [teacher_outputs_of(teacher, data) for teacher, _ in rounds]
    everything = teacher_outputs_of(finished_run(taught_everything(config_of), "teacher"), data)
    for (_, student), now, before in zip(rounds[:-1], outputs[:-1], outputs[1:], strict=True):
        known, asked = set(before.sample.tolist()), set(now.sample.tolist()) - set(before.sample.tolist())
        assert known < set(now.sample.tolist())
        eligible = torch.zeros(len(data.train), dtype=torch.bool)
        eligible[torch.from_numpy(data.trainable(exclude_seen=True))] = True
        eligible[before.sample] = False
        model = frozen_student(finished_run(student, "distill"), torch.device("cpu"))
        assert asked == doubted(model, data, config, eligible, len(asked))
        # What was answered before is kept, and the same teacher answers.
        place = torch.isin(now.sample, before.sample)
        assert torch.equal(now.ranking[place], before.ranking)
        assert torch.equal(now.distance[place], before.distance)
        assert torch.equal(now.item_embedding, before.item_embedding)
        same = torch.isin(everything.sample, now.sample)
        assert torch.allclose(everything.distance[same], now.distance, atol=1e-4)
    assert run.metrics()["teacher_covered_share"] == outputs[0].covered_share


def taught_everything(config_of):
    """Id of a run of the same teacher that has answered for all samples."""
    config = config_of(outputs_token_budget=0, query_policy="random")
    run = distill(config)
    return rounds_of(run, MlflowClient())[0][0].run_id


@pytest.mark.slow
def test_it_is_found_again_with_all_its_rounds(config_of, client):
    first = distill(config_of(rounds=2))
    runs = len(client.search_runs([client.get_run(first.run_id).info.experiment_id]))
    again = distill(config_of(rounds=2))
    assert (again.run_id, again.reused) == (first.run_id, True)
    assert len(client.search_runs([client.get_run(first.run_id).info.experiment_id])) == runs
    # A round is found by what it was asked, and in place of no teacher.
    assert distill(config_of()).run_id != first.run_id
    ((last, _), (own, _)) = rounds_of(first, client)
    assert json.loads(last.artifact(CONFIG_FILE).read_text())["query_policy"] == "uncertainty"
    assert rounds_of(distill(config_of(seed=7)), client)[0][0].run_id not in (last.run_id, own.run_id)


@pytest.mark.slow
def test_a_teacher_that_is_named_is_asked_by_the_policy_at_hand(config_of, client):
    named, _ = rounds_of(distill(config_of()), client)[0]
    run = distill(config_of(teacher_run_id=named.run_id, rounds=2, query_policy="random"))
    (last, _), (first, _) = rounds_of(run, client)
    assert first.run_id == named.run_id
    assert json.loads(last.artifact(CONFIG_FILE).read_text())["query_policy"] == "random"


def doubted(student, data, config, eligible, count):
    """What a student doubts most of the eligible samples."""
    none_yet = torch.zeros(len(data.train), 0, dtype=torch.int64)
    signals, _ = signals_of_student(student, data, eligible, none_yet, config.seed, config.exclude_seen)
    return set(query("uncertainty", signals, count).tolist())


def test_a_share_of_the_answers_is_what_a_smaller_budget_would_have_bought(taught, config_of):
    config = config_of(teacher_run_id=taught.run_id, query_share=0.4)
    data, (teacher, outputs) = data_of(config), teacher_of(config, data_of(config), ALONE)
    everything = teacher_outputs_of(teacher, data)
    assert len(outputs.sample) == round(0.4 * len(everything.sample))
    eligible = torch.zeros(len(data.train), dtype=torch.bool)
    eligible[everything.sample] = True
    backbone = frozen_student(linked_run(teacher, "backbone"), torch.device("cpu"))
    assert set(outputs.sample.tolist()) == doubted(backbone, data, config, eligible, len(outputs.sample))
    kept = torch.isin(everything.sample, outputs.sample)
    for name in ("ranking", "distance", "sequence_embedding"):
        assert torch.equal(getattr(outputs, name), getattr(everything, name)[kept])
    whole = teacher_of(config_of(teacher_run_id=taught.run_id), data, ALONE)[1]
    assert torch.equal(whole.sample, everything.sample)


def test_rounds_of_a_share_ask_by_the_student_before(taught, config_of, client):
    config = config_of(teacher_run_id=taught.run_id, query_share=0.4, rounds=2)
    run = distill(config)
    data, outputs = data_of(config), teacher_of(config, data_of(config), ALONE)[1]
    first = config_of(teacher_run_id=taught.run_id, query_share=0.2)
    student, half = distill(first), teacher_of(first, data, ALONE)[1]
    assert student.reused
    everything = teacher_outputs_of(finished_run(taught.run_id, "teacher"), data)
    eligible = torch.zeros(len(data.train), dtype=torch.bool)
    eligible[everything.sample] = True
    eligible[half.sample] = False
    count = round(0.4 * len(everything.sample)) - len(half.sample)
    asked = doubted(frozen_student(student, torch.device("cpu")), data, config, eligible, count)
    assert set(outputs.sample.tolist()) == asked | set(half.sample.tolist())
    assert run.metrics()["teacher_covered_share"] == outputs.covered_share


def test_where_nothing_is_left_to_ask_it_says_so(taught, config_of):
    with pytest.raises(InputError, match="rounds=3: after 1 of them the teacher has answered for all"):
        distill(config_of(teacher_run_id=taught.run_id, rounds=3))


def test_the_student_of_a_refits_round_starts_from_what_was_measured(monkeypatch):
    before, refit = "a" * 32, "b" * 32
    kept = SimpleNamespace(catalogue=SimpleNamespace(refit_of=before))
    monkeypatch.setattr(student_start, "kept_student", lambda name: {refit: kept}[name])
    config = DistillConfig(refit=True, init_from=refit, rounds=2, query_share=0.5, register="films", force=True)
    found = student_of_round(config)
    assert (found.init_from, found.refit, found.register, found.force) == (before, False, "", True)
    measured = DistillConfig(init_from=refit, rounds=2, query_share=0.5)
    assert student_of_round(measured) == measured


def test_files_and_a_teacher_without_a_budget_cannot_be_asked_again(config_of):
    with pytest.raises(InputError, match="rounds=2: files have no teacher to ask"):
        config_of(rounds=2, teacher_files="folder")
    with pytest.raises(InputError, match=r"query_share=0\.5: files have no teacher to ask"):
        config_of(query_share=0.5, teacher_files="folder")
    with pytest.raises(InputError, match="rounds=2: nothing is left to ask"):
        config_of(rounds=2, outputs_token_budget=0, query_policy="random")


def test_the_estimate_counts_the_rounds(config_of):
    parts = {part.name: part for part in estimate.estimate("distill", config_of(rounds=4, seed=11)).parts}
    assert parts["further rounds"].times == 3
    assert parts["further rounds"].seconds > 0


@pytest.mark.slow
def test_a_server_is_asked_again_within_its_budget(place, small_files, client, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        server.answer = reversed_order
        options = {**small_files, **STUDENT, "teacher": "endpoint", "endpoint": server.address, "query_budget": 20}
        options |= {"endpoint_model": "tiny", "endpoint_candidates": 6, "top_n": 8, "endpoint_evaluate": 0}
        assert run_step("distill", **options, rounds=2, query_policy="uncertainty") == 0
        assert len(set(server.asked)) == len(server.asked) <= 40
    (found,) = client.search_runs([place.newest("distill").info.experiment_id], "params.rounds = '2'")
    (last, _), (first, _) = rounds_of(finished_run(found.info.run_id, "distill"), client)
    covered = [len(teacher_outputs_of(one, data_of(DistillConfig(**small_files))).sample) for one in (last, first)]
    assert covered == [40, 20]


def test_what_is_left_to_ask_goes_by_the_teachers_own_rule(config_of):
    """A repeated item teaches only where seen items may be ranked."""
    data = data_of(config_of())
    everything = range(len(data.train))
    repeats = len(data.train) - data.num_trainable(exclude_seen=True)
    assert repeats > 0
    for exclude_seen in (True, False):
        trainable = data.trainable(exclude_seen)
        asked = torch.as_tensor(everything if trainable is None else trainable)
        for answered in (0, 3, len(asked)):
            known = SimpleNamespace(sample=asked[:answered])
            assert left_to_ask(known, data, exclude_seen) == len(asked) - answered
    # Answers for samples that do not teach leave as many to ask.
    taught = set(data.trainable(exclude_seen=True).tolist())
    aside = torch.tensor([sample for sample in everything if sample not in taught])
    assert left_to_ask(SimpleNamespace(sample=aside), data, exclude_seen=True) == len(taught)
