"""Runs that a killed command left RUNNING, also where it had nothing yet that a later command goes on from.

For each run that a process opens it holds a locked file ``open/<run id>.json`` in the cache; the lock ends with the
process. A later command on the same machine and store marks what is unlocked and still RUNNING as KILLED.
"""

import fcntl
import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import IO

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from recdistill.data.downloads import cache_dir
from recdistill.errors import InputError
from recdistill.runs.outbox import post, read
from recdistill.runs.store_address import noted_address
from recdistill.runs.tracking_store import tracking_address
from recdistill.runs.writes import Write

_held: dict[str, IO[str]] = {}


def open_folder() -> Path:
    """Where the files are."""
    return cache_dir() / "open"


def hold(run_id: str) -> None:
    """Note that this process has opened a run. A cache that cannot be written is said where it is needed."""
    with suppress(OSError):
        open_folder().mkdir(parents=True, exist_ok=True)
        file = (open_folder() / f"{run_id}.json").open("w", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        json.dump({"run_id": run_id, "address": tracking_address(), "machine": platform.node()}, file)
        file.flush()
        _held[run_id] = file


def release(run_id: str) -> None:
    """Note that a run has ended."""
    file = _held.pop(run_id, None)
    if file is not None:
        with suppress(OSError):
            Path(file.name).unlink()
        file.close()


def end_left_open() -> None:
    """Mark the runs of ended processes, in the store at hand and of this machine, KILLED where they are RUNNING.

    The note of a run that the store at hand does not have stays: earlier versions noted the address of a file as it was
    given, which is another file in each folder.
    """
    for path in sorted(open_folder().glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            noted = json.load(file)
            place = (noted_address(str(noted["address"])), noted["machine"])
            if place == (tracking_address(), platform.node()) and ended(str(noted["run_id"])):
                path.unlink()


def ended(run_id: str) -> bool:
    """Mark a run KILLED where it is RUNNING. Returns whether the store at hand has it, and says so."""
    try:
        run = read(lambda: mlflow.get_run(run_id), patience=0)
    except (MlflowException, InputError):
        # No such run, or a store that does not answer: nothing that this command should end with.
        return False
    if run.info.status == "RUNNING":
        with suppress(MlflowException, InputError):
            post(Write("end", run_id, {"status": "KILLED", "time": get_current_time_millis()}))
    return True
