"""Count the HTTP requests that a step makes to a tracking server.

Run ``python benchmarks/store_requests.py``. It starts ``mlflow server`` on a temporary folder, makes a data set of 30
users, and runs ``prepare`` and ``backbone`` with ``--epochs 2`` and ``--epochs 6``, then the second again, which finds
itself. One line a command, by what is asked; one JSON line last, with the numbers in all.
"""

import collections
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from mlflow_server import mlflow_server
from small_data import write_csv

IDS = re.compile(r"/(m-)?[0-9a-f]{32}|/\d+(?=/)")


@contextlib.contextmanager
def counted() -> Iterator["collections.Counter[str]"]:
    """Counts what this process asks over HTTP while it lasts, by method and path without ids."""
    found: collections.Counter[str] = collections.Counter()
    send = requests.Session.send

    def counting(self: requests.Session, request: requests.PreparedRequest, **given: Any) -> requests.Response:
        path = IDS.sub("", str(request.url).partition("?")[0].partition("/api/2.0/")[2])
        kind = "artifacts" if path.startswith("mlflow-artifacts") else path.removeprefix("mlflow/")
        found[f"{request.method} {kind}"] += 1
        return send(self, request, **given)

    requests.Session.send = counting  # type: ignore[method-assign]
    try:
        yield found
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


def main() -> None:
    totals = {}
    with tempfile.TemporaryDirectory() as scratch, mlflow_server(Path(scratch) / "server") as server:
        os.environ |= {"MLFLOW_TRACKING_URI": server.uri, "RECDISTILL_CACHE": f"{scratch}/cache"}
        from recdistill.__main__ import main as recdistill

        data = [f"--{name}={value}" for name, value in write_csv(Path(scratch)).items()]
        small = ["--hidden_size=16", "--patience=0"]
        commands = {
            "prepare": ["prepare", *data],
            "backbone, 2 epochs": ["backbone", *data, *small, "--epochs=2"],
            "backbone, 6 epochs": ["backbone", *data, *small, "--epochs=6"],
            "backbone, found again": ["backbone", *data, *small, "--epochs=6"],
        }
        for name, command in commands.items():
            with counted() as found, contextlib.redirect_stdout(io.StringIO()):
                recdistill(command)
            totals[name] = found.total()
            kinds = ", ".join(f"{kind} {count}" for kind, count in found.most_common())
            print(f"{name}: {found.total()} requests: {kinds}", flush=True)
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
