"""A tracking server that is killed in the middle: the work goes on, and nothing of it is lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow_server import MlflowServer, mlflow_server
from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import arguments

pytestmark = pytest.mark.slow
SECONDS = 600
TEACHER: dict[str, object] = {
    "token_budget": 16_000, "tokens_per_batch": 200, "teacher_window": 12, "teacher_history": 4, "top_n": 10,
}  # fmt: skip
STUDENT: dict[str, object] = {
    "epochs": 40, "patience": 40, "hidden_size": 16, "blocks": 1, "max_length": 12, "batch_size": 16,
}  # fmt: skip
SPACE = """\
objective: val/ndcg_at_20
parameters:
  lam: {low: 0.0, high: 1.0}
"""


@dataclass
class Place:
    """A server, and a folder to start commands in that log there."""

    folder: Path
    server: MlflowServer
    options: dict[str, object]

    def start(self, step: str, grace: float = 300.0, uri: str = "", **options: object) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {
            "MLFLOW_TRACKING_URI": uri or self.server.uri,
            "MLFLOW_EXPERIMENT_ID": "0",
            "RECDISTILL_CACHE": str(self.folder / ("cache" if not uri else "other")),
            "RECDISTILL_TRACKING_GRACE": str(grace),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "recdistill", *arguments(step, options)],
            env=environment, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def until(self, process: "subprocess.Popen[str]", what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not what():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def checkpoint(self, name: str) -> bool:
        return bool(list((self.folder / "cache" / "runs").glob(f"*/{name}")))

    def waits(self) -> bool:
        return bool(list((self.folder / "cache" / "outbox").glob("*/0*")))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    options = {**write_csv(tmp_path), **TEACHER, "llm": write_tiny_llm(tmp_path / "llm")}
    with mlflow_server(tmp_path / "server") as server:
        yield Place(tmp_path, server, options)


def runs(uri: str, condition: str = "") -> list[Run]:
    return list(MlflowClient(uri).search_runs(["0"], condition))


def results(run: Run) -> dict[str, float]:
    return {name: value for name, value in run.data.metrics.items() if name.startswith(("val/", "test/"))}


def of_step(uri: str, step: str) -> Run:
    (found,) = runs(uri, f"tags.`recdistill.step` = '{step}' and attributes.status = 'FINISHED'")
    return found


def lose(place: Place, step: str, checkpoint: str, **options: object) -> "subprocess.Popen[str]":
    """Start a step, and kill its server once it has a checkpoint."""
    process = place.start(step, **options)
    place.until(process, lambda: place.checkpoint(checkpoint))
    place.server.kill()
    place.until(process, place.waits)
    return process


def check_as_undisturbed(place: Place, step: str, options: dict[str, object], of: tuple[str, ...]) -> None:
    # The study of a sweep lies beside the store.
    (place.folder / "whole").mkdir(exist_ok=True)
    whole = f"sqlite:///{place.folder}/whole/mlflow.db"
    process = place.start(step, uri=whole, **options)
    said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    for name in of:
        found, expected = of_step(place.server.uri, name), of_step(whole, name)
        assert results(found) == results(expected)
        assert results(found) or name == "sweep"
        for metric in set(expected.data.metrics) & {"train/total", "train/base", "val/mrr"}:
            curves = [
                [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]
                for uri, run in ((place.server.uri, found), (whole, expected))
            ]
            assert curves[0] == curves[1]
        listed = [
            sorted(one.path for one in MlflowClient(uri).list_artifacts(run.info.run_id))
            for uri, run in ((place.server.uri, found), (whole, expected))
        ]
        assert listed[0] == listed[1]
        assert len(found.outputs.model_outputs) == len(expected.outputs.model_outputs)
    assert {run.info.status for run in runs(place.server.uri)} == {"FINISHED"}
    assert not place.waits()
    assert not list((place.folder / "cache" / "runs").glob("*/*"))


@pytest.mark.parametrize(
    ("step", "checkpoint", "of"),
    [
        ("teacher", "teacher.safetensors", ("teacher",)),
        ("distill", "student.safetensors", ("teacher", "distill")),
        ("sweep", "student.safetensors", ("teacher", "sweep")),
    ],
)
def test_a_server_that_comes_back_has_all_in_the_end(place: Place, step: str, checkpoint: str, of: tuple[str, ...]):
    options = place.options | (STUDENT if step != "teacher" else {})
    if step == "sweep":
        (place.folder / "space.yaml").write_text(SPACE, encoding="utf-8")
        options |= {"space": place.folder / "space.yaml", "trials": 2, "final_seeds": 0}
        # Not the student of the backbone that the teacher reads: a trial's.
        made = place.start("teacher", **place.options)
        said = made.communicate(timeout=SECONDS)
        assert made.returncode == 0, said
    if step == "distill":
        # The backbone of the teacher has a checkpoint of the same name.
        made = place.start("teacher", **place.options)
        said = made.communicate(timeout=SECONDS)
        assert made.returncode == 0, said
    process = lose(place, step, checkpoint, **options)
    time.sleep(2)
    place.server.start()
    said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert "the work goes on" in said[0]
    assert "is back: sent" in said[0]
    check_as_undisturbed(place, step, options, of)


def test_a_server_that_is_lost_for_good_loses_nothing(place: Place) -> None:
    options = place.options | STUDENT
    made = place.start("teacher", **place.options)
    said = made.communicate(timeout=SECONDS)
    assert made.returncode == 0, said
    process = lose(place, "distill", "student.safetensors", grace=1, **options)
    said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    lines = [line for line in said[1].splitlines() if line.startswith("recdistill distill: ")]
    assert len(lines) == 1
    assert "Traceback" not in said[1]
    assert f"tracking store {place.server.uri} does not take what is logged" in lines[0]
    assert f"writes wait in {place.folder}/cache/outbox, `recdistill sync` sends them" in lines[0]
    # Its results are there, and so is the checkpoint until they have arrived.
    assert place.checkpoint("student.safetensors")
    away = place.start("sync")
    assert "does not answer" in away.communicate(timeout=SECONDS)[1] or away.returncode == 1
    assert away.returncode == 1
    place.server.start()
    sync = place.start("sync")
    assert "writes that earlier commands left" in sync.communicate(timeout=SECONDS)[0]
    assert sync.returncode == 0
    found = of_step(place.server.uri, "distill")
    assert results(found)
    again = place.start("distill", **options)
    assert again.communicate(timeout=SECONDS)
    assert again.returncode == 0
    entry = runs(place.server.uri, f"tags.`recdistill.reused_run_id` = '{found.info.run_id}'")
    assert len(entry) == 1
    check_as_undisturbed(place, "distill", options, ("teacher",))
