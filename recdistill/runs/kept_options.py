"""What finished runs keep of their options: read from their artifacts, many at once."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from recdistill.errors import InputError
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.run import CONFIG_FILE, KEY_FILE

READERS = 8


@dataclass(frozen=True)
class KeptOptions:
    """The options of a run.

    Attributes:
        values: its ``config.json``.
        key_parts: its ``key.json``, see `config.lineage.key_parts`; None for a run of recdistill 0.1, which has none.
    """

    values: Mapping[str, Any]
    key_parts: Mapping[str, Any] | None


def kept_options(runs: Sequence[Run]) -> dict[str, KeptOptions]:
    """The options of runs by id; those whose ``config.json`` is gone are left out.

    Raises InputError, naming the run, where a file is damaged.
    """
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(read_options, runs)
        return {run.info.run_id: kept for run, kept in zip(runs, found, strict=True) if kept is not None}


def read_options(run: Run) -> KeptOptions | None:
    """The options of a run; None where its ``config.json`` is gone."""
    values = read_json(run, CONFIG_FILE)
    return None if values is None else KeptOptions(values, read_json(run, KEY_FILE))


def read_json(run: Run, name: str) -> dict[str, Any] | None:
    """An artifact of a run that holds a JSON object; None where there is none."""
    try:
        text = local_artifact(f"{run.info.artifact_uri}/{name}").read_text(encoding="utf-8")
    except (MlflowException, OSError):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"run {run.info.run_id}: its {name} is damaged; run that step again")
    return found
