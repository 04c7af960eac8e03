"""Runs that a killed command left RUNNING are marked KILLED by the next one, and no others are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from recdistill.runs.open_runs import end_left_open, hold, open_folder, release
from recdistill.runs.step_runs import entry_run

HOLDING = """\
import sys
from recdistill.runs.open_runs import hold
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def running(client: MlflowClient) -> str:
    return str(client.create_run("0").info.run_id)


def status(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.status)


def held_by_another(run_id: str, uri: str = "") -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, uri or mlflow.get_tracking_uri(), run_id],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_run_of_a_killed_process_ends_killed(client: MlflowClient) -> None:
    run_id = running(client)
    process = held_by_another(run_id)
    end_left_open()
    assert status(client, run_id) == "RUNNING"
    process.kill()
    process.wait()
    with entry_run("compare"):
        pass
    assert status(client, run_id) == "KILLED"
    assert not list(open_folder().iterdir())


@pytest.mark.parametrize("ended", ["FINISHED", "FAILED"])
def test_a_run_that_has_ended_stays_as_it_is(client: MlflowClient, ended: str) -> None:
    run_id = running(client)
    process = held_by_another(run_id)
    client.set_terminated(run_id, ended)
    process.kill()
    process.wait()
    end_left_open()
    assert status(client, run_id) == ended
    assert not list(open_folder().iterdir())


@pytest.mark.parametrize("change", [{"address": "sqlite:///another.db"}, {"machine": "another"}])
def test_runs_of_another_store_or_machine_are_left(client: MlflowClient, change: dict[str, str]) -> None:
    run_id = running(client)
    hold(run_id)
    release(run_id)
    path = open_folder() / f"{run_id}.json"
    path.write_text(json.dumps({"run_id": run_id, "address": mlflow.get_tracking_uri(), "machine": ""} | change))
    end_left_open()
    assert path.exists()
    assert status(client, run_id) == "RUNNING"
    path.unlink()


def test_the_run_of_another_folders_store_is_left_to_a_command_there(client: MlflowClient, monkeypatch):
    run_id, here = running(client), Path.cwd()
    address = f"sqlite:///{here.name}.db"
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.get_tracking_uri", lambda: address)
        hold(run_id)
        noted = json.loads((open_folder() / f"{run_id}.json").read_text())
        assert noted["address"] == f"sqlite:///{here}/{here.name}.db"
    release(run_id)
    path = open_folder() / f"{run_id}.json"
    # As earlier versions noted it, which from here is the same text.
    for run, stays in (("0" * 32, True), (run_id, False)):
        path.write_text(json.dumps(noted | {"run_id": run, "address": "sqlite:///mlflow.db"}))
        end_left_open()
        assert path.exists() == stays
    assert status(client, run_id) == "KILLED"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id": 3, "address": "", "machine": ""}'])
def test_a_damaged_note_does_no_harm(client: MlflowClient, text: str) -> None:
    open_folder().mkdir(parents=True, exist_ok=True)
    path = open_folder() / "damaged.json"
    path.write_text(text)
    end_left_open()
    path.unlink()


def test_what_this_process_has_opened_is_not_ended(client: MlflowClient) -> None:
    with entry_run("compare"):
        active = mlflow.active_run()
        assert active is not None
        end_left_open()
        assert status(client, active.info.run_id) == "RUNNING"
        assert len(list(open_folder().iterdir())) == 1
    assert status(client, active.info.run_id) == "FINISHED"
    assert not list(open_folder().iterdir())
