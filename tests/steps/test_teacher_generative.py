"""The step ``teacher`` with ``teacher=generative``: what it trains on, what it keeps, and who can use it."""

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from recdistill.config import DistillConfig, EvaluateConfig, TeacherConfig
from recdistill.errors import InputError
from recdistill.runs.step_runs import finished_run
from recdistill.steps.distill import distill
from recdistill.steps.evaluate import evaluate
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.steps.teacher import find_teacher, teacher

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
    del options["teacher_window"]  # of a ranking teacher
    return TeacherConfig(**{name: str(value) if name == "llm" else value for name, value in options.items()})


@pytest.fixture
def written(taught):
    """A finished generative teacher; made once."""
    return teacher(config_of(taught))


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
    shared = {name: value for name, value in config.values().items() if name not in ("force", "device")}
    run = distill(DistillConfig(**shared, **student, teacher_run_id=written.run_id))
    assert run.metrics()["teacher_covered_share"] == written.metrics()["covered_share"]
    assert find_teacher(config, "", data_of(config)).run_id == written.run_id


@pytest.mark.parametrize("answer", ["as-trained", "free", "constrained", "likelihood"])
def test_it_is_evaluated_again_in_any_way_of_answering(written, answer):
    run = evaluate(EvaluateConfig(run_id=written.run_id, answer=answer))
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
        evaluate(EvaluateConfig(run_id=taught.run_id, answer="free"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("answer", "constrained"), ("domain", "music"), ("candidates", 19), ("curriculum", False)],
)
def test_its_options_are_refused_to_a_ranking_teacher(name, value):
    with pytest.raises(InputError, match=f"{name}={value}: is of teacher=generative; set that, or leave {name} out"):
        TeacherConfig(**{name: value})
    assert TeacherConfig(**{name: value}, teacher="generative").value(name) == value


@pytest.mark.slow
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


def test_more_candidates_than_the_catalogue_leaves_are_refused(taught):
    with pytest.raises(InputError, match="candidates=39: a history leaves only"):
        teacher(config_of(taught, candidates=39))
