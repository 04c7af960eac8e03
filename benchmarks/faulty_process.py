"""recdistill's command line, with a fault at a chosen moment: what `kill_campaign.py` starts.

``python benchmarks/faulty_process.py STEP --name value ...``. The environment variable ``RECDISTILL_FAULT`` holds a
JSON object. A *moment* is the n-th time that this process is about to write, rename or make something below ``folder``,
and some seconds after that.

    folder     what counts
    log        file to append each moment's time and path to, or empty
    event      the moment of the fault, from 1; 0 for none
    delay      seconds after it, for the two signals
    fault      "SIGKILL", "SIGTERM", "full disk" or "read-only artifacts"
    rank       process of a launch that has the fault

A full disk refuses every write from then on; read-only artifacts refuse those below a folder ``mlruns`` or
``artifacts``. Checkpoints are written ten times a second, so that there is always one to go on from.
"""

import builtins
import errno
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

CHECKPOINT_SECONDS = 0.1


class Moments:
    """Counts what this process is about to write, and does the fault at its moment."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.folder, self.log = str(plan["folder"]), plan["log"]
        self.event, self.delay, self.fault = plan["event"], plan["delay"], plan["fault"]
        self.mine = int(os.environ.get("RANK", "0")) == plan["rank"]
        self.count = 0
        self.lock = threading.RLock()
        self.write = builtins.open

    def before(self, path: Any) -> None:
        """Called before each write. Raises OSError where the fault refuses it."""
        text = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        if not text.startswith(self.folder) or text == self.log or not self.mine:
            return
        with self.lock:
            self.count += 1
            if self.log:
                with self.write(self.log, "a") as file:
                    file.write(json.dumps([time.time(), text]) + "\n")
            if not self.event or self.count < self.event:
                return
            if self.fault in ("SIGKILL", "SIGTERM"):
                if self.count == self.event:
                    threading.Timer(self.delay, os.kill, (os.getpid(), getattr(signal, self.fault))).start()
            elif self.fault == "full disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), text)
            elif "/mlruns/" in text or "/artifacts/" in text:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), text)


def watch(moments: Moments) -> None:
    """Have every way to write ask first."""

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


def write_often() -> None:
    """Have checkpoints and shards written ten times a second."""
    from recdistill.teachers import scoring
    from recdistill.training.fit import TrainingPlan

    TrainingPlan.__init__.__kwdefaults__["checkpoint_seconds"] = CHECKPOINT_SECONDS
    scoring.SHARD_SECONDS = CHECKPOINT_SECONDS


def main() -> int:
    """The command line, watched."""
    watch(Moments(json.loads(os.environ["RECDISTILL_FAULT"])))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    write_often()
    from recdistill.__main__ import main as recdistill

    return recdistill(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
