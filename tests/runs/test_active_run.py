"""A training started from Python logs to the user's run, or nowhere."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from recdistill.config import BaselineConfig
from recdistill.errors import InputError
from recdistill.runs.active_run import recorder_of_active_run
from recdistill.runs.finished_runs import newest
from recdistill.runs.run import STEP
from recdistill.training.recorder import NoRecorder


def test_without_a_run_nothing_is_kept(client: MlflowClient) -> None:
    assert mlflow.active_run() is None
    assert type(recorder_of_active_run("backbone")) is NoRecorder


def test_all_goes_to_the_active_run_as_it_is_named(client: MlflowClient) -> None:
    with mlflow.start_run() as active:
        mlflow.log_param("seed", "seven")
        recorder = recorder_of_active_run("backbone", BaselineConfig(epochs=3))
        recorder.log_metrics({"val/hr_at_10": 0.5}, step=2)
        recorder.log_text("note.txt", "text")
        recorder.log_folder("student", lambda folder: folder.mkdir() or (folder / "a.txt").write_text("a"))
        recorder.tag("word", 3)
        recorder.describe("trained")
        recorder.describe("a second sentence that is not the first")
        (recorder.work / "checkpoint").touch()
        assert mlflow.active_run().info.run_id == active.info.run_id
    run = client.get_run(active.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "3"
    assert run.data.params["seed"] == "seven"
    assert run.data.metrics == {"val/hr_at_10": 0.5}
    assert client.get_metric_history(active.info.run_id, "val/hr_at_10")[0].step == 2
    assert [file.path for file in client.list_artifacts(active.info.run_id)] == ["note.txt", "student"]
    assert run.data.tags["recdistill.word"] == "3"
    assert run.data.tags["recdistill.fitted"] == "backbone"
    assert run.data.tags["mlflow.note.content"] == "trained"


def test_the_users_own_description_stays(client: MlflowClient) -> None:
    with mlflow.start_run(description="mine") as active:
        recorder_of_active_run("distill").describe("trained")
    assert client.get_run(active.info.run_id).data.tags["mlflow.note.content"] == "mine"


def test_no_step_takes_it_for_one_of_its_own(client: MlflowClient) -> None:
    with mlflow.start_run() as active:
        recorder_of_active_run("distill")
    assert STEP not in client.get_run(active.info.run_id).data.tags
    with pytest.raises(InputError, match="there is no finished distill run"):
        newest("distill")
