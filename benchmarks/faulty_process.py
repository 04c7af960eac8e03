"""recdistill's command line, with a fault at a chosen moment: what `kill_campaign.py` starts.

``python benchmarks/faulty_process.py STEP --name value ...``. The environment variable ``RECDISTILL_FAULT`` holds a
JSON object. A *moment* is the n-th time that this process is about to write, rename or make something below ``folder``,
and some seconds after that.

    folder     what counts
    log        file to append the time of the start and each moment's time and path to, or empty
    event      the moment of the fault, from 1; 0 for none
    delay      seconds after it, for the two signals
    fault      "SIGKILL", "SIGTERM", "full disk" or "read-only artifacts"
    rank       process of a launch that has the fault
    after      seconds after the start of the process for a signal, in place of a moment; 0 for none

`in_fork` does the same in a copy of a process that has imported everything: starting Python takes seconds, most of them
for imports, and there are many commands.

A full disk refuses every write from then on; read-only artifacts refuse those below a folder ``mlruns`` or
``artifacts``. Checkpoints are written ten times a second, so that there is always one to go on from.
"""

import builtins
import errno
import importlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

CHECKPOINT_SECONDS = 0.1


class Moments:
    """Counts what this process is about to write, and does the fault at its moment; nothing before `begin`."""

    def __init__(self) -> None:
        self.mine = False
        self.count = 0
        self.lock = threading.RLock()
        self.write = builtins.open

    def begin(self, plan: dict[str, Any]) -> None:
        """Follow a plan from now on."""
        self.folder, self.log = str(plan["folder"]), plan["log"]
        self.event, self.delay, self.fault = plan["event"], plan["delay"], plan["fault"]
        self.mine = int(os.environ.get("RANK", "0")) == plan["rank"]
        if self.log and self.mine:
            self.note("")
        if plan["after"] and self.mine:
            self.signal_in(plan["after"])

    def note(self, path: str) -> None:
        """Write down the time and what is about to be written."""
        with self.write(self.log, "a") as file:
            file.write(json.dumps([time.time(), path]) + "\n")

    def signal_in(self, seconds: float) -> None:
        """Send this process its signal after some seconds, where it still runs."""
        timer = threading.Timer(seconds, os.kill, (os.getpid(), getattr(signal, self.fault)))
        timer.daemon = True
        timer.start()

    def before(self, path: Any) -> None:
        """Called before each write. Raises OSError where the fault refuses it."""
        if not self.mine:
            return
        text = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        if not text.startswith(self.folder) or text == self.log:
            return
        with self.lock:
            self.count += 1
            if self.log:
                self.note(text)
            if not self.event or self.count < self.event:
                return
            if self.fault in ("SIGKILL", "SIGTERM"):
                if self.count == self.event:
                    self.signal_in(self.delay)
            elif self.fault == "full disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), text)
            elif "/mlruns/" in text or "/artifacts/" in text:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), text)


def watch() -> Moments:
    """Have every way to write ask first, of the modules too that are imported from now on. Returns who is asked."""
    moments = Moments()

    def asking(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def asked(*arguments: Any, **named: Any) -> Any:
            if len(arguments) > place:
                moments.before(arguments[place])
            return function(*arguments, **named)

        return asked

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            moments.before(file)
        return moments.write(file, mode, *arguments, **named)

    builtins.open = opened  # type: ignore[assignment]
    io.open = opened  # type: ignore[assignment]
    for name, place in (("replace", 1), ("rename", 1), ("mkdir", 0)):
        setattr(os, name, asking(getattr(os, name), place))
    safetensors.torch.save_file = asking(safetensors.torch.save_file, 1)
    return moments


def write_often() -> None:
    """Have checkpoints and shards written ten times a second."""
    from recdistill.teachers import scoring
    from recdistill.training.fit import TrainingPlan

    TrainingPlan.__init__.__kwdefaults__["checkpoint_seconds"] = CHECKPOINT_SECONDS
    TrainingPlan.__init__.__kwdefaults__["checkpoint_spacing"] = 0.0
    scoring.SHARD_SECONDS = CHECKPOINT_SECONDS


def import_all() -> Moments:
    """Import what any command needs, watched."""
    moments = watch()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    # A pool of threads would not be carried over into a fork.
    torch.set_num_threads(1)
    write_often()
    from recdistill.config.steps import STEPS

    for name in (*(f"recdistill.steps.{step}" for step in STEPS), "mlflow.pyfunc", "transformers", "peft", "optuna"):
        importlib.import_module(name)
    return moments


def in_fork(function: Callable[[], int], said: Path, seconds: float, **variables: str) -> int:
    """Call a function in a copy of this process, which is killed where it takes longer. Returns its exit status.

    Args:
        function: gives the exit status.
        said: file for its standard output and errors; its folder is the working folder.
        seconds: the longest time.
        variables: of the copy's environment.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return ended(child, seconds)
    status = 1
    try:
        os.setsid()
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(said.parent)
        os.environ.update(variables)
        tempfile.tempdir = None
        # torch renews its pool of threads at its first use in a fork, and fails where two threads do that at once.
        torch.set_num_threads(1)
        status = function()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not by Python's own way, which would clean up what the first process has.
        os._exit(status)


def ended(child: int, seconds: float) -> int:
    """Wait for a process, and kill it where it takes longer. Returns its exit status, less than 0 for a signal."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def command(moments: Moments, arguments: list[str]) -> int:
    """The command line, under the plan of the environment. Returns the exit status."""
    moments.begin(json.loads(os.environ["RECDISTILL_FAULT"]))
    from recdistill.__main__ import main as recdistill

    return recdistill(arguments)


def main() -> int:
    """The command line, watched."""
    moments = watch()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    write_often()
    return command(moments, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
