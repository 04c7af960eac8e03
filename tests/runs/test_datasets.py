"""Data as an input of a run, also where the store refuses at first."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sweep_stub import options

from recdistill.data.load import load_data
from recdistill.runs import datasets, writes
from recdistill.runs.outbox import outbox


@pytest.mark.parametrize("refused", [0, 1, 4, 5])
def test_data_are_logged_where_another_process_made_their_row_first(tmp_path, client, monkeypatch, refused):
    asked, log = [], MlflowClient.log_inputs

    def log_inputs(self, *given):
        asked.append(given)
        if len(asked) <= refused:
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest")
        return log(self, *given)

    monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
    monkeypatch.setattr(writes.time, "sleep", lambda seconds: None)
    data = load_data(options(tmp_path))
    with mlflow.start_run() as run:
        datasets.log_data(run.info.run_id, data)
        # What is refused as often as that waits on disk for the next try.
        assert outbox().waits_for(run.info.run_id) is (refused >= writes.ATTEMPTS)
        assert outbox().drain(5)
    found = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert {entry.dataset.name for entry in found} == {f"{data.name} {part}" for part in ("train", "val", "test")}
