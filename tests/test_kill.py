"""Killed in the middle, the same command goes on and ends with the numbers of an undisturbed run."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import Workplace, arguments, subprocess_environment

from recdistill.runs.step_runs import CONTINUED

pytestmark = pytest.mark.slow
SECONDS = 600
OPTIONS = {
    "token_budget": 16_000, "tokens_per_batch": 200, "teacher_window": 12, "teacher_history": 4, "lora_dropout": 0.1,
    "epochs": 25, "patience": 25, "hidden_size": 16, "blocks": 1, "max_length": 12, "batch_size": 16,
    "selection_policy": "kl_divergence", "selection_fraction": 0.5, "refresh_interval": 2,
}  # fmt: skip


@pytest.fixture
def make_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Workplace]:
    # A store that is made here keeps its artifacts below the working directory.
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> Workplace:
        (tmp_path / name / "cache").mkdir(parents=True)
        return Workplace(tmp_path / name, tmp_path)

    return make


def start(place: Workplace, options: dict[str, object], entry: str = "main") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "recdistill", *arguments(entry, options)],
        env=subprocess_environment(place),
        cwd=place.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_once(place: Workplace, options: dict[str, object], step: str, checkpoint: str, entry: str = "main") -> None:
    """Kill the process once ``step`` has a checkpoint."""
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    # The first use of a store makes its tables, and two processes must not.
    assert not runs(client, step, "FINISHED")
    process = start(place, options, entry)
    deadline = time.monotonic() + SECONDS
    while not (place.checkpoints(checkpoint) and runs(client, step, "RUNNING")):
        assert process.poll() is None, f"it ended before {step} had a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()


def runs(client: MlflowClient, step: str, status: str) -> list:
    condition = f"tags.`recdistill.step` = '{step}' and attributes.status = '{status}'"
    return list(client.search_runs(["0"], condition))


def results(client: MlflowClient, step: str) -> list[dict[str, float]]:
    """Ranking metrics of the finished runs of a step."""
    return [
        {name: value for name, value in run.data.metrics.items() if name.startswith(("val/", "test/"))}
        for run in runs(client, step, "FINISHED")
    ]


def seconds(client: MlflowClient, run_id: str) -> dict[int, float]:
    """How long a run had trained at the end of each epoch: never the same twice, unless it was taken over."""
    return {point.step: point.value for point in client.get_metric_history(run_id, "train/seconds")}


def test_killed_twice_it_ends_as_undisturbed(make_place, tmp_path):
    llm = write_tiny_llm(tmp_path / "llm")
    # A control beside it would be another run of the same steps.
    options = {**write_csv(tmp_path), **OPTIONS, "llm": llm, "control": False}
    whole, killed = make_place("whole"), make_place("killed")
    assert start(whole, options).wait(SECONDS) == 0
    kill_once(killed, options, "teacher", "teacher.safetensors")
    kill_once(killed, options, "distill", "student.safetensors")
    assert start(killed, options).wait(SECONDS) == 0

    expected, found = (MlflowClient(place.environment["MLFLOW_TRACKING_URI"]) for place in (whole, killed))
    for step in ("teacher", "distill", "main"):
        assert results(found, step) == results(expected, step)
        assert len(results(found, step)) == 1
        # Each killed run names the one that went on from it, not from the beginning.
        for run in runs(found, step, "KILLED"):
            following = run.data.tags[CONTINUED]
            assert found.get_run(following).data.tags["recdistill.step"] == step
            before, after = seconds(found, run.info.run_id), seconds(found, following)
            assert step == "main" or after[0] == before[0]
        assert not runs(found, step, "RUNNING")
    kept = [
        [file.path for file in client.list_artifacts(runs(client, "distill", "FINISHED")[0].info.run_id, "selection")]
        for client in (expected, found)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 1
    assert len(runs(found, "teacher", "KILLED")) == len(runs(found, "distill", "KILLED")) == 1
    assert len(runs(found, "main", "KILLED")) == 2
    assert not killed.checkpoints("*.safetensors")


def test_the_users_run_is_continued_by_the_users_next_run(make_place, tmp_path):
    """A distillation killed while it made its teacher: its own run had not begun."""
    options = {**write_csv(tmp_path), **OPTIONS, "llm": write_tiny_llm(tmp_path / "llm"), "epochs": 1}
    place = make_place("place")
    kill_once(place, options, "teacher", "teacher.safetensors", entry="distill")
    assert start(place, options, entry="distill").wait(SECONDS) == 0
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    for step in ("distill", "teacher"):
        (killed,), (finished,) = (runs(client, step, status) for status in ("KILLED", "FINISHED"))
        assert killed.data.tags[CONTINUED] == finished.info.run_id
