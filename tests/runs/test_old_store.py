"""A tracking store of recdistill 0.1 (tests/data/store_0_1) is read by the recdistill of today."""

import gzip
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import Run
from small_data import write_csv

from recdistill.config import STEPS, DataConfig, config_of
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.report.compared import groups_of
from recdistill.report.results import MetricName, Results, compare_groups
from recdistill.runs.compared_runs import compared_runs
from recdistill.runs.finished_runs import finished_run, linked_run, newest, options_of_run, search
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import load_model, recommendations
from recdistill.students.build import load_recommender
from recdistill.students.measure import ranked
from recdistill.teachers.outputs import TeacherOutputs

STORE = Path(__file__).parents[1] / "data" / "store_0_1"
HISTORIES = [["i3", "i4"], ["i17", "unknown", "i9"], []]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store, unpacked and brought to the schema of the MLflow at hand, as the current one."""
    folder = tmp_path_factory.mktemp("store")
    text = gzip.decompress((STORE / "mlflow.sql.gz").read_bytes()).decode().replace("/folder/of/the/store", str(folder))
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript(text)
    with tarfile.open(STORE / "mlruns.tar.gz") as artifacts:
        artifacts.extractall(folder, filter="data")
    address = f"sqlite:///{folder}/mlflow.db"
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
    subprocess.run(upgrade, check=True, capture_output=True, env=os.environ | {"MLFLOW_TRACKING_URI": address})
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SequenceData:
    return load_data(DataConfig(**write_csv(tmp_path_factory.mktemp("data"))))


def runs_of(step: str, **params: str) -> list[Run]:
    """Runs of a step with these parameters, the oldest first."""
    found = search(f"tags.`recdistill.step` = '{step}'")[::-1]
    return [run for run in found if params.items() <= run.data.params.items()]


def step_run_of(run: Run) -> StepRun:
    return finished_run(run.info.run_id, run.data.tags["recdistill.step"])


@pytest.fixture(scope="module")
def compared(store: Path) -> Results:
    found = compared_runs([], "", "auto", "test")
    groups = groups_of(found.runs, found.baseline)
    return compare_groups(groups, found.samples, MetricName("test", "ndcg", 10), resamples=500, seed=1)


def test_its_runs_compare_as_they_did(compared: Results) -> None:
    (run,) = runs_of("compare")
    then = pd.read_csv(step_run_of(run).artifact("comparison/comparison.csv"))
    now = compared.frame()
    told = ["step", "seeds", "run_ids", "metric", "subgroup_kind", "subgroup", "samples", "users"]
    pd.testing.assert_frame_equal(now[told], then[told], check_dtype=False)
    numbers = [name for name in then.select_dtypes("number") if name not in told]
    assert {"value", "difference", "interval_low", "p_value", "p_value_holm"} <= set(numbers)
    pd.testing.assert_frame_equal(now[numbers], then[numbers], check_exact=True)


def test_two_seeds_are_one_recommender(compared: Results) -> None:
    seeds = {group.label: len(group.runs) for group in compared.groups}
    assert sorted(seeds.values()) == [1, 1, 1, 1, 2, 2, 2]
    assert seeds["distill"] == seeds["teacher"] == 2


def test_its_registered_model_recommends(store: Path) -> None:
    answers = recommendations(load_model("models:/old-student/1"), pd.DataFrame({"history": HISTORIES, "k": 3}))
    assert answers["items"].tolist()[0] == ["i2", "i5", "i1"]
    assert answers["scores"].tolist()[0] == pytest.approx([0.66417557, 0.518337965, 0.4926512837], abs=1e-6)
    assert answers["unknown_items"].tolist() == [0, 1, 0]
    assert answers["fallback"].tolist() == [False, False, True]
    assert "recdistill.students.recommend" not in sys.modules


def test_the_newest_distilled_student_is_found(store: Path) -> None:
    assert newest("distill") == runs_of("distill", seed="2")[0].info.run_id
    again = recommendations(load_model(""), pd.DataFrame({"history": HISTORIES}))
    other = recommendations(load_model("models:/old-student/2"), pd.DataFrame({"history": HISTORIES}))
    pd.testing.assert_frame_equal(again, other)


@pytest.mark.parametrize(
    ("step", "params"),
    [
        ("distill", {"seed": "1"}),
        ("distill", {"seed": "2"}),
        ("backbone", {"hidden_size": "64", "seed": "1"}),
        ("backbone", {"student": "caser"}),
        ("backbone", {"student": "gru4rec"}),
    ],
    ids=str,
)
def test_its_students_rank_as_they_did(store: Path, data: SequenceData, step: str, params: dict[str, str]) -> None:
    (run,) = runs_of(step, **params)
    made = step_run_of(run)
    assert made.fingerprint == data.fingerprint
    model = load_recommender(made.artifact("student"))
    ranks = ranked(model, data.test, exclude_seen=True, device=torch.device("cpu"), keep=0).ranks
    then = pd.read_parquet(made.artifact("ranks/test.parquet"))["rank"].to_numpy()
    # Version 0.1 ranked a target that its history has; it is never recommended, and a miss now.
    seen = data.test.target_seen
    np.testing.assert_array_equal(ranks.numpy()[~seen], then[~seen])
    assert (ranks.numpy()[seen] == data.num_items + 1).all()


def test_its_teacher_outputs_are_read(store: Path, data: SequenceData) -> None:
    (run,) = runs_of("teacher", seed="1")
    outputs = TeacherOutputs.load(step_run_of(run).artifact("teacher_outputs"), data.fingerprint)
    answers = outputs.answers(10)
    assert answers.covered_share == run.data.metrics["covered_share"] == 1.0
    assert answers.ranking.shape == (len(data.train), 10)
    assert answers.item_embedding.shape == (data.num_items, 32)
    assert answers.sequence_embedding is not None


@pytest.mark.parametrize("step", ["backbone", "teacher", "distill"])
def test_its_options_are_read(store: Path, step: str) -> None:
    run, found, values = options_of_run(newest(step), (step,))
    config = config_of(STEPS[found], values)
    kept = json.loads(run.artifact("config.json").read_text())
    if step == "distill":
        assert kept["ranking_loss"] == "ranking"
        kept["ranking_loss"] = "base"  # as it is called today
    shared = {name: value for name, value in config.values().items() if name in kept}
    assert shared == {name: kept[name] for name in shared}
    assert len(shared) > 10


def test_its_runs_lead_to_those_that_they_were_made_from(store: Path) -> None:
    (run,) = runs_of("distill", seed="1")
    teacher = linked_run(step_run_of(run), "teacher")
    assert teacher.run_id == runs_of("teacher", seed="1")[0].info.run_id
    assert linked_run(teacher, "backbone").run_id == runs_of("backbone", hidden_size="64", seed="1")[0].info.run_id
