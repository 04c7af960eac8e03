import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from workplace import new_store


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """A client of a store of the module's own, which is the current one; its experiment '0' keeps its artifacts."""
    folder: Path = tmp_path_factory.mktemp("store")
    before, cache, here = mlflow.get_tracking_uri(), os.environ.get("RECDISTILL_CACHE"), Path.cwd()
    os.environ["RECDISTILL_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    mlflow.set_tracking_uri(new_store(folder))
    yield MlflowClient()
    os.chdir(here)
    mlflow.set_tracking_uri(before)
    if cache is None:
        del os.environ["RECDISTILL_CACHE"]
    else:
        os.environ["RECDISTILL_CACHE"] = cache
