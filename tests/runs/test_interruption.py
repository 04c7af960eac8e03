"""A signal lets a call to a database end first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from recdistill.runs.interruption import interrupt, stop_on, stop_on_signals

SIGNALS = (signal.SIGTERM, signal.SIGINT)
INSIDE = ["sqlalchemy", "sqlalchemy.engine.base", "mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store"]
OUTSIDE = ["recdistill.steps.distill", "sqlalchemyst", "mlflow.store.tracking.rest_store", "mlflow", "__main__"]
#: Ends itself by a signal at a moment while it writes to a database, and then says how it ended, as a run does.
PROGRAM = """
import os, random, signal, sys, threading, time
import mlflow
from recdistill.runs.interruption import stop_on_signals
run = mlflow.start_run()
stop_on_signals(lambda: sys.exit("ended"))
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGTERM)).start()
client = mlflow.MlflowClient()
try:
    while True:
        client.set_tag(run.info.run_id, "at", str(random.random()))
finally:
    client.set_tag(run.info.run_id, "end", "said")
    mlflow.end_run("FAILED")
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def in_module(name: str, number: int, seconds: float, done: list[str], last: str = "") -> None:
    """Send this process a signal in a function of the module ``name``, which goes on for a while and then ``last``."""
    code: CodeType = compile(
        "def call():\n    kill(pid, number)\n    end = clock() + seconds\n    while clock() < end:\n        pass\n"
        f"    done.append('call')\ncall()\n{last}",
        name,
        "exec",
    )
    names: dict[str, Any] = {
        "__name__": name, "kill": os.kill, "pid": os.getpid(), "number": number, "clock": time.monotonic,
        "seconds": seconds, "done": done,
    }  # fmt: skip
    exec(code, names)


def calls_only(name: str, number: int, done: list[str]) -> None:
    """A program that does nothing but call: it is to end after one call, not when luck finds it between two."""
    while True:
        in_module(name, number, 0.05, done)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", INSIDE)
def test_a_call_to_a_database_ends_first(name: str, number: int):
    stop_on(number, interrupt)
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        calls_only(name, number, done)
    assert done == ["call"]
    assert sys.getprofile() is None


def test_a_call_to_a_database_that_fails_is_the_last():
    stop_on(signal.SIGTERM, interrupt)
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        in_module("sqlalchemy", signal.SIGTERM, 0.05, done, last="raise OSError('disk full')")
    assert done == ["call"]


def test_of_two_signals_the_first_ends_the_command():
    stop_on_signals(lambda: sys.exit("ended"))
    with pytest.raises(SystemExit):
        in_module("sqlalchemy", signal.SIGTERM, 0.05, [], last=f"kill(pid, {int(signal.SIGINT)})")
    with pytest.raises(KeyboardInterrupt):
        in_module("recdistill", signal.SIGINT, 10, [])


@pytest.mark.parametrize("name", OUTSIDE)
def test_anything_else_ends_at_once(name: str):
    stop_on(signal.SIGTERM, interrupt)
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        in_module(name, signal.SIGTERM, 10, done)
    assert done == []


def test_a_database_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("recdistill.runs.interruption.LONGEST_SECONDS", 0.2)
    stop_on(signal.SIGTERM, interrupt)
    for _ in range(2):
        done: list[str] = []
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            in_module("mlflow.store.db.utils", signal.SIGTERM, 10, done)
        assert done == []
        assert 0.2 <= time.monotonic() - began < 5


def test_each_signal_has_its_exception():
    stop_on_signals(lambda: sys.exit("ended"))
    for number, error in ((signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)):
        with pytest.raises(error):
            in_module("recdistill", number, 10, [])


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(4))
def test_the_end_of_a_run_finds_its_database_free(tmp_path: Path, moment: int):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(0.5 + moment / 40)], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "ended"
    assert "Traceback" not in done.stderr
