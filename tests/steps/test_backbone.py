"""The undistilled student: what validation chooses, what is kept, and that it can be used."""

import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import run_step

from recdistill.config import DataConfig, StudentConfig, narrow
from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.registry import STUDENTS
from recdistill.steps.backbone import backbone, key_of_baseline
from recdistill.steps.inputs import data_of
from recdistill.steps.student_start import student_start
from recdistill.students.build import load_recommender, load_student
from recdistill.students.measure import ranks_of

SMALL = {"hidden_size": 16, "blocks": 1, "max_length": 8, "epochs": 8, "patience": 2, "dropout": 0.1, "batch_size": 16}
SMALL |= {"smoothing": 1, "least_epochs": 0}


@pytest.fixture
def options(small_files, place):
    return small_files | SMALL


def test_the_kept_student_gives_the_ranks_and_metrics_of_the_best_epoch(options):
    config = StudentConfig(**options)
    run, data = backbone(config), data_of(config)
    student = load_student(run.artifact("student"))
    metrics, client = run.metrics(), MlflowClient()
    for part, samples in (("val", data.validation), ("test", data.test)):
        ranks = ranks_of(student, samples, config.exclude_seen, torch.device("cpu"))
        assert pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")["rank"].tolist() == ranks.tolist()
        for name, value in metrics_from_ranks(ranks).items():
            assert metrics[f"{part}/{name}"] == pytest.approx(value, abs=1e-12)
    curve = {point.step: point.value for point in client.get_metric_history(run.run_id, "val/ndcg_at_10")}
    best = int(metrics["best_epoch"])
    last = max(curve)
    # The last point is that of the kept weights.
    assert curve[last] == curve[best] == max(curve.values())
    assert best == min(epoch for epoch, value in curve.items() if value == max(curve.values()))
    assert last == metrics["best_epoch"] + 1 + config.patience or last == config.epochs
    assert metrics["test/ndcg_at_10"] > 0.2  # items follow each other in a ring: this can be learnt
    assert metrics["train_seconds"] > 0
    assert metrics["ms_per_1000_recommendations"] > 0
    assert 0 < metrics["latency_ms"] < 1000


def test_test_is_measured_once_and_chooses_nothing(options):
    run = backbone(StudentConfig(**options))
    assert len(MlflowClient().get_metric_history(run.run_id, "test/ndcg_at_10")) == 1


@pytest.mark.parametrize("student", STUDENTS.names())
def test_every_recommender_is_kept_found_and_described(small_files, place, student):
    config = StudentConfig(**small_files, student=student, epochs=2, max_length=8, hidden_size=16)
    run, data = backbone(config), data_of(config)
    kept = load_recommender(run.artifact("student"))
    assert kept.num_items == data.num_items
    ranks = ranks_of(kept, data.test, config.exclude_seen, torch.device("cpu"))
    assert pd.read_parquet(run.artifact("ranks") / "test.parquet")["rank"].tolist() == ranks.tolist()
    assert backbone(config).run_id == run.run_id
    found = MlflowClient().get_run(run.run_id)
    trained = student in STUDENTS.names(gradient=True)
    note = found.data.tags["mlflow.note.content"]
    assert note.startswith(f"Undistilled {student} on" if trained else f"{student} on")
    assert ("best of 2 epochs" in note) == trained
    assert ("best_epoch" in found.data.metrics) == ("train/total" in found.data.metrics) == trained
    assert {"train_seconds", "latency_ms", "ms_per_1000_recommendations"} <= found.data.metrics.keys()


def test_what_cannot_be_built_is_refused_before_a_run_is_made(options):
    before = len(MlflowClient().search_runs(["0"]))
    with pytest.raises(InputError, match="heads=3: must divide hidden_size=16"):
        backbone(StudentConfig(**options, heads=3))
    assert len(MlflowClient().search_runs(["0"])) == before


def test_the_same_options_find_the_run_and_others_do_not(options):
    first = backbone(StudentConfig(**options))
    assert backbone(StudentConfig(**options)).run_id == first.run_id
    assert backbone(StudentConfig(**options, device="cpu")).run_id == first.run_id
    for changes in ({"exclude_seen": False}, {"mask_seen": False}, {"hidden_size": 8}, {"max_users": 20}):
        config = StudentConfig(**options | changes)
        assert key_of_baseline(config, data_of(config).fingerprint, student_start(config, data_of(config))) != first.key
    assert backbone(StudentConfig(**options | {"seed": 2, "epochs": 1})).run_id != first.run_id


def test_a_forced_run_is_the_same_to_the_last_bit(options):
    first = backbone(StudentConfig(**options))
    again = backbone(StudentConfig(**options, force=True))
    assert (again.run_id != first.run_id, again.key) == (True, first.key)
    ours, theirs = (load_student(run.artifact("student")).state_dict() for run in (first, again))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_run_can_be_foretold(options):
    config = StudentConfig(**options)
    assert (
        key_of_baseline(config, data_of(config).fingerprint, student_start(config, data_of(config)))
        == backbone(config).key
    )


def test_chronological_split(options):
    run = backbone(StudentConfig(**options, split="chronological"))
    table = pd.read_parquet(run.artifact("ranks") / "test.parquet")
    data = data_of(narrow(StudentConfig(**options, split="chronological"), DataConfig))
    assert len(table) == len(data.test)
    assert set(table.columns) == {"user", "item", "rank", "history_length", "item_count"}
    assert table["item_count"].tolist() == data.item_count[data.test.targets].tolist()


@pytest.mark.parametrize("name", ["backbone", "baseline"])
def test_from_the_command_line_the_step_has_the_users_own_run(options, place, name):
    """``baseline`` is the same step by another name, and the run of one is found by the other."""
    assert run_step(name, **options) == 0
    runs = MlflowClient().search_runs(["0"])
    assert [run.data.tags["recdistill.step"] for run in runs] == ["backbone"]
    assert run_step("backbone", **options) == 0
    newest = place.newest()
    assert newest.data.tags["recdistill.reused_run_id"] == runs[0].info.run_id
    assert newest.data.metrics == runs[0].data.metrics
