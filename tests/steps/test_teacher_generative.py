"""The step ``teacher`` with ``teacher=generative``: what it trains on, what it keeps, and who can use it."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from tiny_generative import tiny_causal_llm

from recdistill.config import DistillConfig, EvaluateConfig, TeacherConfig
from recdistill.errors import InputError
from recdistill.steps.distill import distill
from recdistill.steps.evaluate import evaluate_run
from recdistill.steps.generative_scoring import generative_scorer
from recdistill.steps.inputs import data_of, frozen_student, teacher_outputs_of
from recdistill.steps.teacher import find_backbone, find_teacher, teacher
from recdistill.steps.teacher_generative import (
    NumberedBatch,
    check_length,
    generative_at_work,
    generative_lesson,
    generative_shape,
)
from recdistill.teachers.generative.candidate_prompts import NO_ITEM, NO_LABEL
from recdistill.teachers.generative.model import build_generative_model
from recdistill.runs.step_runs import finished_run
from recdistill.training.distributed import Processes

OPTIONS = {
    "teacher": "generative",
    "max_users": 10,
    "candidates": 5,
    "token_budget": 6000,
    "tokens_per_batch": 600,
    "outputs_token_budget": 3000,
}
SHARES = ("valid_ratio", "hit_ratio_at_1", "valid_ratio_times_hit_ratio_at_1", "hit_ratio_at_1_of_all")


def config_of(taught, **changes):
    options = taught.options | OPTIONS | changes
    return TeacherConfig(**{name: str(value) if name == "llm" else value for name, value in options.items()})


@pytest.fixture
def written(taught):
    """A finished generative teacher; made once."""
    return teacher(config_of(taught))


@pytest.fixture
def at_work(taught):
    """The teacher of a configuration, untrained, beside its backbone."""

    def make(**changes):
        config = config_of(taught, **changes)
        data, cpu = data_of(config), torch.device("cpu")
        student = frozen_student(find_backbone(config, data), cpu)
        torch.manual_seed(0)
        table = student.item_table().detach()
        model = build_generative_model(tiny_causal_llm(), generative_shape(config), data.titles, table)
        return config, generative_scorer(config, model, student, data)

    return make


def test_it_keeps_what_was_trained_and_what_students_read(taught, written):
    config, metrics = config_of(taught), written.metrics()
    data = data_of(config)
    outputs = teacher_outputs_of(finished_run(written.run_id, "teacher"), data)
    assert outputs.manifest.teacher == "generative"
    assert 0 < outputs.covered_share < 1
    assert metrics["covered_share"] == outputs.covered_share
    for part in ("val", "test"):
        for share in (*SHARES, "backbone_hit_ratio_at_1"):
            name = f"{part}/{share}"
            assert 0 <= metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"] <= 1
        table = pd.read_parquet(written.artifact("answers") / f"{part}.parquet")
        assert list(table.columns) == ["user", "item", "title", "answer", "named"]
        assert table["named"].notna().mean() == metrics[f"{part}/valid_ratio"]
        assert (table["named"] == table["item"]).mean() == metrics[f"{part}/hit_ratio_at_1_of_all"]
    names = [path.name for path in written.artifact("teacher").rglob("*") if path.is_file()]
    assert {"teacher.json", "teacher.safetensors", "adapter_model.safetensors"} <= set(names)
    assert metrics["ms_per_answer"] > 0


def test_its_curves_are_those_of_a_teacher_and_of_the_curriculum(written):
    client = MlflowClient()
    curves = {
        name: [point.value for point in client.get_metric_history(written.run_id, f"train/{name}")]
        for name in ("total", "injected", "gate_entropy", "tokens_per_second")
    }
    assert len({len(curve) for curve in curves.values()}) == 1
    assert len(curves["total"]) == 10
    assert curves["total"][-1] < curves["total"][0]
    assert set(curves["injected"]) == {0.0, 1.0}
    assert curves["injected"][-1] == 1.0


def test_a_student_learns_from_it(taught, written):
    student = {"epochs": 2, "hidden_size": 8, "blocks": 1, "heads": 1, "max_length": 10}
    config = config_of(taught)
    shared = {name: value for name, value in vars(config).items() if name not in ("force", "device")}
    run = distill(DistillConfig(**shared, **student, teacher_run_id=written.run_id))
    assert run.metrics()["teacher_covered_share"] == written.metrics()["covered_share"]
    assert find_teacher(config, "", data_of(config)).run_id == written.run_id


@pytest.mark.parametrize("answer", ["as-trained", "free", "constrained", "likelihood"])
def test_it_is_evaluated_again_in_any_way_of_answering(written, answer):
    run = evaluate_run(EvaluateConfig(run_id=written.run_id, answer=answer))
    own, again = written.metrics(), run.metrics()
    if answer in ("as-trained", "free"):
        for name in ("val/valid_ratio", "test/hit_ratio_at_1", "test/ndcg_at_10", "val/mrr"):
            assert again[name] == own[name]
    else:
        assert again["val/valid_ratio"] == again["test/valid_ratio"] == 1
    assert again["test/backbone_hit_ratio_at_1"] == own["test/backbone_hit_ratio_at_1"]
    assert len(pd.read_parquet(run.artifact("answers") / "test.parquet")) == len(
        pd.read_parquet(written.artifact("answers") / "test.parquet")
    )


def test_a_way_of_answering_is_only_for_those_who_answer(taught):
    with pytest.raises(InputError, match=f"answer=free: run {taught.run_id} is no generative teacher"):
        evaluate_run(EvaluateConfig(run_id=taught.run_id, answer="free"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("answer", "constrained"), ("domain", "music"), ("candidates", 19), ("curriculum", False)],
)
def test_its_options_are_refused_to_a_ranking_teacher(name, value):
    with pytest.raises(InputError, match=f"{name}={value}: is of teacher=generative; set that, or leave it out"):
        TeacherConfig(**{name: value})
    assert getattr(TeacherConfig(**{name: value}, teacher="generative"), name) == value


@pytest.mark.parametrize(
    "changes", [{"answer": "constrained", "gate_per_layer": True, "gate": "mlp", "query_policy": "uncertainty"}]
)
def test_other_generative_teachers_run_the_whole_step(taught, changes):
    small = {"token_budget": 1200, "outputs_token_budget": 1, "exclude_seen": False, "split": "chronological"}
    run = teacher(config_of(taught, **small, **changes))
    assert run.metrics()["test/valid_ratio"] == 1
    assert "test/ndcg_at_10" in run.metrics()


def test_an_untrained_one_answers_too(taught):
    run = teacher(config_of(taught, token_budget=0, outputs_token_budget=1))
    assert run.metrics()["train_seconds"] == 0
    assert 0 <= run.metrics()["test/valid_ratio"] <= 1


def forwards(monkeypatch, scorer):
    """A list that gets what the model is asked; it answers nothing."""
    asked = []

    def forward(prompts, states, injected):
        asked.append(SimpleNamespace(prompts=prompts, states=states, injected=injected))
        scorer.teacher.sample_gates = torch.full((len(prompts), 4), 0.25)
        return torch.zeros(())

    monkeypatch.setattr(scorer.teacher, "forward", forward)
    return asked


def taken(lesson, number):
    return [batch for batch, _ in zip(lesson.batches(), range(number), strict=False)]


def test_item_embeddings_come_into_ever_more_batches(at_work, monkeypatch):
    config, scorer = at_work()
    asked = forwards(monkeypatch, scorer)
    lesson = generative_lesson(config, scorer, 120)
    for batch in taken(lesson, 120):
        losses = lesson.step(batch)
        assert float(losses["injected"]) == asked[-1].injected
    injected = [one.injected for one in asked]
    thirds = [sum(injected[begin : begin + 40]) for begin in (0, 40, 80)]
    # Expected 7, 20 and 33.
    assert thirds[0] < 15 < thirds[1] < 27 < thirds[2]
    plain_config, _ = at_work(curriculum=False)
    asked.clear()
    for batch in taken(lesson, 5):
        generative_lesson(plain_config, scorer, 120).step(batch)
    assert [one.injected for one in asked] == [True] * 5


def wording_of(parts, tokens):
    heads = [head.tolist() for head, _, _ in parts.wordings]
    return next(number for number, head in enumerate(heads) if tokens[: len(head)].tolist() == head)


def test_prompts_are_those_of_the_samples_with_candidates_drawn_anew(at_work, monkeypatch):
    config, scorer = at_work()
    asked = forwards(monkeypatch, scorer)
    lesson, train = generative_lesson(config, scorer, 10), scorer.data.train
    batches = taken(lesson, 80)
    wordings, offered = set(), {}
    parts = scorer.teacher.parts
    for batch in batches:
        lesson.step(batch)
        prompts = asked[-1].prompts
        own = {wording_of(parts, row) for row in prompts.tokens}
        assert len(own) == 1
        wordings |= own
        torch.testing.assert_close(asked[-1].states, scorer.states(batch.batch))
        for row, sample in enumerate(batch.batch.sample.tolist()):
            history = train.items[train.start[sample] : train.end[sample]].tolist()
            target = int(train.targets[sample])
            items = prompts.item[row][prompts.item[row] != NO_ITEM].tolist()
            listed, candidates = items[:-5], items[-5:]
            assert listed == history[-config.teacher_history :]
            assert target in candidates
            assert not (set(candidates) - {target}) & set(history)
            labels = prompts.labels[row][prompts.labels[row] != NO_LABEL]
            assert labels.tolist() == parts.answer(target).tolist()
            offered.setdefault(sample, []).append(candidates)
    assert wordings == {0, 1, 2}
    twice = [rows for rows in offered.values() if len(rows) > 1]
    assert twice
    assert any(rows[0] != rows[1] for rows in twice)


def test_a_lesson_is_the_same_each_time(at_work, monkeypatch):
    config, scorer = at_work()
    asked = forwards(monkeypatch, scorer)
    lesson = generative_lesson(config, scorer, 10)
    for _ in range(2):
        for batch in taken(lesson, 6):
            lesson.step(batch)
    for first, second in zip(asked[:6], asked[6:], strict=True):
        assert torch.equal(first.prompts.tokens, second.prompts.tokens)
        assert first.injected == second.injected


def test_batches_have_about_the_tokens_of_the_options(at_work):
    config, scorer = at_work(tokens_per_batch=1500)
    lesson = generative_lesson(config, scorer, 40)
    sizes = [lesson.size(batch) for batch in taken(lesson, 40)]
    assert sum(size["tokens"] for size in sizes) / 40 == pytest.approx(1500, rel=0.2)
    assert all(size["samples"] >= 1 for size in sizes)


def test_parts_of_a_batch_make_the_prompts_of_the_whole(at_work, monkeypatch):
    config, scorer = at_work(tokens_per_batch=1500)
    asked = forwards(monkeypatch, scorer)
    lesson = generative_lesson(config, scorer, 10)
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


def test_parts_of_a_batch_have_their_parts_of_the_gradient(at_work):
    config, scorer = at_work(tokens_per_batch=1500)
    with torch.no_grad():
        for parameter in scorer.teacher.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    lesson = generative_lesson(config, scorer, 1)
    whole = taken(lesson, 1)[0]
    assert len({len(scorer.teacher.parts.answer(item)) for item in whole.batch.target.tolist()}) > 1

    def gradient(parts):
        scorer.teacher.zero_grad()
        for part, share in parts:
            (share * lesson.step(part)["total"]).backward()
        return torch.cat([p.grad.flatten() for p in scorer.teacher.parameters() if p.requires_grad])

    expected = gradient([(whole, 1.0)])
    for count in (2, 50):
        found = gradient([lesson.divide(whole, index, count) for index in range(count)])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_what_cannot_work_is_refused_before_it_is_trained(at_work):
    config, scorer = at_work()
    check_length(config, scorer, None)
    check_length(config, scorer, 2048)
    with pytest.raises(InputError, match=r"candidates=5: makes prompts of up to \d+ tokens, and llm=.* reads 100;"):
        check_length(config, scorer, 100)
    llm = SimpleNamespace(most_tokens=None)
    with pytest.raises(InputError, match="--use_fsdp: a generative teacher"):
        generative_at_work(config, llm, scorer.backbone, scorer.data, Processes(0, 2, sharded=True))


def test_more_candidates_than_the_catalogue_leaves_are_refused(taught):
    with pytest.raises(InputError, match="candidates=39: a history leaves only"):
        teacher(config_of(taught, candidates=39))
