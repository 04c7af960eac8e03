"""Data as an input of a run, also where the store refuses at first."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recdistill.data.load import load_data
from recdistill.runs import datasets
from sweep_stub import options


@pytest.mark.parametrize("refused", [0, 1, 4, 5])
def test_data_are_logged_where_another_process_made_their_row_first(tmp_path, client, monkeypatch, refused):
    asked, log = [], MlflowClient.log_inputs

    def log_inputs(self, *given):
        asked.append(given)
        if len(asked) <= refused:
            raise MlflowException("UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest")
        return log(self, *given)

    monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
    monkeypatch.setattr(datasets.time, "sleep", lambda seconds: None)
    data = load_data(options(tmp_path))
    with mlflow.start_run() as run:
        if refused < datasets.ATTEMPTS:
            datasets.log_data(run.info.run_id, data)
        else:
            with pytest.raises(MlflowException, match="UNIQUE"):
                datasets.log_data(run.info.run_id, data)
    found = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert [entry.dataset.name for entry in found] == [data.name] * (refused < datasets.ATTEMPTS)
