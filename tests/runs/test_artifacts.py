"""Artifacts as local files: no copies of what is here, none left behind of what is not."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from recdistill.errors import InputError
from recdistill.runs.step_runs import StepRun

COPY = """
import sys
from recdistill.runs import artifacts
artifacts.is_local_uri = lambda uri: False
paths = [artifacts.local_artifact(sys.argv[1]) for _ in range(2)]
print(*paths, *(path.read_text() for path in paths), sep="\\n")
"""


@pytest.fixture
def run(client: MlflowClient, tmp_path: Path) -> StepRun:
    experiment = client.create_experiment(tmp_path.name, (tmp_path / "kept here").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "known", "folder/name.txt")
    return StepRun(run_id, "", "", reused=True)


def test_it_is_read_in_place(run: StepRun, tmp_path: Path) -> None:
    path = run.artifact("folder/name.txt")
    assert path.read_text() == "known"
    assert path.is_relative_to(tmp_path / "kept here")
    assert run.artifact("folder") == path.parent


def test_what_is_not_there_is_said(run: StepRun) -> None:
    with pytest.raises(InputError, match=f"run {run.run_id}: has no artifact other.txt"):
        run.artifact("other.txt")


@pytest.mark.slow
def test_copies_of_a_remote_one_go_with_the_process(run: StepRun) -> None:
    uri = f"{mlflow.get_run(run.run_id).info.artifact_uri}/folder/name.txt"
    done = subprocess.run([sys.executable, "-c", COPY, uri], capture_output=True, text=True, check=True)
    first, second, *texts = done.stdout.splitlines()
    assert texts == ["known", "known"]
    assert first != second
    assert not Path(first).exists()
    assert not Path(second).exists()
