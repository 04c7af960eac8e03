"""The files that a rating passes on its way to test NDCG, in the order in which their functions are first called.

Trains a small student by the step ``backbone`` on a ring of films, and follows every call of the package. Prints each
file but those of options, runs and reports, how many there are, and how often the way changes rooms. ``--package``
follows another checkout's.
"""

import argparse
import csv
import importlib
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

USERS, ITEMS, LENGTH = 30, 40, 8
#: What reads options, or keeps and draws results: no rating passes there. In version 0.1 two of them had other names.
BESIDE = {"__main__", "command_line", "config", "errors", "plugins", "registry", "runs", "report"}
BESIDE |= {"tracking", "comparison"}


def arguments(folder: Path) -> list[str]:
    """The command line that trains on two CSV files, which are written here."""
    folder.mkdir()
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(user, (user + step) % ITEMS, step) for user in range(USERS) for step in range(LENGTH)]
        csv.writer(file).writerows([("user", "item", "timestamp"), *rows])
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("item", "title"), *((item, f"Film {item}") for item in range(ITEMS))])
    small = ["backbone", "--dataset=csv", "--epochs=1", "--hidden_size=8"]
    return [*small, *(f"--{name}={folder / name}.csv" for name in ("interactions", "items"))]


def files_called(package: Path, run: Any) -> list[str]:
    """Files of the package in the order of their first call, as paths within it."""
    seen: dict[str, None] = {}
    names: dict[str, str | None] = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name not in ("<module>", "<lambda>"):
            if code.co_filename not in names:
                path = Path(code.co_filename)
                names[code.co_filename] = str(path.relative_to(package)) if path.is_relative_to(package) else None
            name = names[code.co_filename]
            if name is not None:
                seen[name] = None

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return list(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help="folder that holds another checkout's package recdistill")
    package: Path | None = parser.parse_args().package
    if package is not None:
        sys.path.insert(0, str(package.resolve()))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.environ["RECDISTILL_CACHE"] = str(folder / "cache")
        root = Path(str(importlib.import_module("recdistill").__file__)).resolve().parent
        command = importlib.import_module("recdistill.__main__").main
        # The first run imports: defining a class is a call, too.
        command(arguments(folder / "first"))
        second = [*arguments(folder / "second"), "--seed=2"]
        called = files_called(root, lambda: command(second))
    called = [name for name in called if room_of(name) not in BESIDE]
    rooms = [room_of(name) for name in called]
    print("\n".join(called))
    print(f"{len(called)} files, {sum(a != b for a, b in pairwise(rooms))} changes of room")


def room_of(name: str) -> str:
    """The first folder of a path within the package, or the module itself."""
    return name.split("/")[0].removesuffix(".py")


if __name__ == "__main__":
    main()
