"""Artifacts as files of this machine."""

import functools
import tempfile
from pathlib import Path

import mlflow
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from recdistill.runs.outbox import read


@functools.cache
def copies() -> "tempfile.TemporaryDirectory[str]":
    """The folder of this process's copies, removed with the process."""
    return tempfile.TemporaryDirectory(prefix="recdistill-")


def local_artifact(uri: str) -> Path:
    """Path of an artifact: in place where the store is a folder of this machine, else that of a copy.

    Raises MlflowException or OSError where it cannot be had.
    """
    if is_local_uri(uri):
        path = Path(local_file_uri_to_path(uri))
        if not path.exists():
            raise FileNotFoundError(path)
        return path
    # MLflow never removes the folder that it would choose.
    target = tempfile.mkdtemp(dir=copies().name)
    return Path(read(lambda: mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=target)))
