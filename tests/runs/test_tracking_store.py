"""Every failure of a store or a folder at the start is one line that says what to do; no password is in it."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient
from workplace import Workplace, new_store, run_step

from recdistill.config import ALIASES, STEPS
from recdistill.config.steps import WITHOUT_RUN
from recdistill.errors import InputError
from recdistill.runs.tracking_store import answers, fault, is_of_files, is_silence, reason_of, refusal


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    new_store(tmp_path)
    (tmp_path / "downloads").mkdir()
    place = Workplace(tmp_path, tmp_path / "downloads")
    with place.entered():
        yield place


def deleted_experiment(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    number = MlflowClient().create_experiment("gone")
    MlflowClient().delete_experiment(number)
    patch.setenv("MLFLOW_EXPERIMENT_ID", number)


def no_experiment(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MLFLOW_EXPERIMENT_ID", "77")


def no_run(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MLFLOW_RUN_ID", "f" * 32)


def no_server(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://somebody:secret@127.0.0.1:9")


def folder_of_files(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    mlflow.set_tracking_uri(str(place.folder / "mlruns"))


def another_mlflow(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffff0000ffff'")
        database.commit()
    # The store of a process is checked once.
    (place.folder / "mlflow.db").rename(place.folder / "newer.db")
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/newer.db")


def no_database(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    (place.folder / "text.db").write_text("no database, but a text that is long enough to be read as one\n" * 100)
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/text.db")


def no_folder_for_the_database(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    (place.folder / "file").write_text("")
    mlflow.set_tracking_uri(f"sqlite:///{place.folder}/file/mlflow.db")


def no_such_kind(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    mlflow.set_tracking_uri("ftp://somewhere")


def artifacts_not_writable(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    (place.folder / "mlruns").write_text("a file where the folder of artifacts should be")


def cache_not_writable(place: Workplace, patch: pytest.MonkeyPatch) -> None:
    (place.folder / "file").write_text("")
    patch.setenv("RECDISTILL_CACHE", str(place.folder / "file" / "cache"))


#: By what is wrong, what the line tells to do.
FAILURES: dict[Callable[[Workplace, pytest.MonkeyPatch], None], str] = {
    deleted_experiment: "`mlflow experiments restore --experiment-id ID` brings it back",
    no_experiment: "set MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID to one that is there, or unset both",
    no_run: "unset MLFLOW_RUN_ID",
    no_server: "start the server, or set MLFLOW_TRACKING_URI to one that runs",
    folder_of_files: "set MLFLOW_TRACKING_URI=sqlite:///mlflow.db",
    another_mlflow: "another version of MLflow made the database than the installed",
    no_database: "give the file of an MLflow database, or one that is not there yet",
    no_folder_for_the_database: "set MLFLOW_TRACKING_URI to a place that can be written",
    no_such_kind: "set MLFLOW_TRACKING_URI to sqlite:///mlflow.db or to a server",
    artifacts_not_writable: "make it writable, or set MLFLOW_EXPERIMENT_NAME to an experiment whose artifacts lie",
    cache_not_writable: "set RECDISTILL_CACHE to a folder that can be written",
}


def one_line(step: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run_step(step) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    assert said.startswith(f"recdistill {ALIASES.get(step, step)}: ")
    assert "Traceback" not in said
    assert "secret" not in said
    return said


@pytest.mark.parametrize("spoil", FAILURES, ids=lambda spoil: spoil.__name__)
def test_a_failure_at_the_start_is_one_line(place, capsys, monkeypatch, spoil):
    spoil(place, monkeypatch)
    assert FAILURES[spoil] in one_line("compare", capsys)
    assert mlflow.active_run() is None


@pytest.mark.parametrize("step", [name for name in [*STEPS, *ALIASES] if name not in WITHOUT_RUN])
def test_every_entry_point_says_so(place, capsys, monkeypatch, step):
    deleted_experiment(place, monkeypatch)
    assert FAILURES[deleted_experiment] in one_line(step, capsys)


def test_a_run_that_was_opened_before_the_folder_was_tried_fails(place, capsys, monkeypatch):
    cache_not_writable(place, monkeypatch)
    said = one_line("compare", capsys)
    run = place.newest("compare")
    assert run.info.status == "FAILED"
    assert run.data.tags["recdistill.failure"] in said


def test_sync_without_a_server_says_what_waits(place, capsys, monkeypatch):
    no_server(place, monkeypatch)
    assert run_step("sync") == 0
    assert capsys.readouterr().out.strip() == "nothing waits"


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@host:5000/path", "postgresql+psycopg2://me:se:cret@host/db", "https://token-secret@host"],
)
def test_messages_hold_no_password(address):
    assert "cret" not in str(refusal(MlflowException(f"could not connect to {address}")))
    assert "cret" not in reason_of(ConnectionError(address))


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (requests.ConnectionError("x"), True),
        (requests.ReadTimeout("x"), True),
        (ConnectionResetError("x"), True),
        (MlflowException("API request to http://h failed with exception ... Max retries exceeded"), True),
        (MlflowException("x", TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("API request to /x failed with error code 503 != 200", INTERNAL_ERROR), True),
        (MlflowException("connection refused", RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("Run with id=1 not found", RESOURCE_DOES_NOT_EXIST), False),
        (FileNotFoundError("x"), False),
        (InputError("connection refused"), False),
    ],
)
def test_silence_is_told_from_an_answer(error, silent):
    assert is_silence(error) is silent


def test_faults_of_files_and_of_the_store_are_said_in_one_line():
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/x")
    assert is_of_files(full)
    again = "then start the same command again: it goes on from its checkpoint"
    assert str(fault(full)) == f"/cache/x: No space left on device; make room, {again}"
    assert "make room" in str(fault(RuntimeError("I/O error: No space left on device (os error 28)")))
    assert "mend that" in str(fault(PermissionError(errno.EACCES, "Permission denied", "/x")))
    assert "two lines" in str(fault(MlflowException("two\nlines")))
    for other in (
        ValueError("a bug"),
        KeyError("a bug"),
        InputError("said"),
        KeyboardInterrupt(),
        FileNotFoundError("x"),
    ):
        assert fault(other) is None


def test_a_store_that_is_no_server_always_answers():
    assert answers("sqlite:///nowhere/mlflow.db")
    assert not answers("http://127.0.0.1:9")
