"""A tracking store and cache of a test's own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from workplace import new_store


@contextmanager
def own_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with store and cache, in memory where the machine has such a folder: commits are quick there."""
    before = mlflow.get_tracking_uri()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        path = Path(name)
        monkeypatch.setenv("RECDISTILL_CACHE", str(path / "cache"))
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "sweeps")
        monkeypatch.chdir(path)
        mlflow.set_tracking_uri(new_store(path))
        mlflow.create_experiment("sweeps", (path / "artifacts").as_uri())
        try:
            yield path
        finally:
            monkeypatch.undo()
            mlflow.set_tracking_uri(before)
