"""The writes that runs make to a tracking store, each as values of JSON and a folder of files, and what each does.

A write may be repeated: where the first try arrived and its answer was lost, the store holds the same as after one.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from recdistill.runs.tracking_store import is_silence

Perform = Callable[[MlflowClient, str, Mapping[str, Any], Path], None]
#: Metrics of one call, parameters and tags of one call: no store takes more.
MOST_METRICS, MOST_PAIRS = 1000, 100
ATTEMPTS = 5
#: Tag: what runs share that must have the same result; a run gets it as the last of its results.
RUN_KEY = "recdistill.key"


@dataclass(frozen=True)
class Write:
    """A write to a run.

    Attributes:
        kind: of `KINDS`.
        run_id: of the run.
        values: what is written, as JSON values; times of metrics and of an end are in it, so that a later sending
            tells when it was.
    """

    kind: str
    run_id: str
    values: Mapping[str, Any]

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"kind": self.kind, "run_id": self.run_id, "values": dict(self.values)})

    @classmethod
    def of(cls, text: str) -> "Write":
        """From `text`. Raises ValueError where it is of another form."""
        found = json.loads(text)
        match found:
            case {"kind": str(kind), "run_id": str(run_id), "values": dict(values)} if kind in KINDS:
                return cls(kind, run_id, values)
        raise ValueError("is no write of a run")


def batch(
    run_id: str,
    metrics: Sequence[tuple[str, float, int, int]] = (),
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    *,
    model: str = "",
    datasets: Mapping[str, tuple[str, str]] | None = None,
) -> Write:
    """Metrics as (name, value, time in ms, step), parameters and tags.

    Args:
        run_id: of the run.
        metrics, params, tags: what is logged.
        model: mark, or id, of the logged model whose metrics they are, too; see `logged_models`.
        datasets: name and digest of the data that its metrics were measured on, by the first part of their names.
    """
    texts = [{name: str(value) for name, value in (pairs or {}).items()} for pairs in (params, tags)]
    values = {"metrics": [list(point) for point in metrics], "params": texts[0], "tags": texts[1]}
    if model:
        values |= {"model": model, "datasets": {part: list(one) for part, one in (datasets or {}).items()}}
    return Write("batch", run_id, values)


def log_batch(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log a `batch`, in calls of a size that stores take."""
    metrics = [Metric(name, value, time, step) for name, value, time, step in values["metrics"]]
    if values.get("model"):
        metrics = of_model(client, run_id, metrics, values["model"], values["datasets"])
    for begin in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[begin : begin + MOST_METRICS])
    params = [Param(name, text) for name, text in values["params"].items()]
    tags = [RunTag(name, text) for name, text in values["tags"].items()]
    for begin in range(0, max(len(params), len(tags)), MOST_PAIRS):
        part = slice(begin, begin + MOST_PAIRS)
        client.log_batch(run_id, params=params[part], tags=tags[part])


def of_model(
    client: MlflowClient, run_id: str, metrics: Sequence[Metric], mark: str, datasets: Mapping[str, Sequence[str]]
) -> list[Metric]:
    """Metrics linked to the model that carries a mark, and to the data that each was measured on."""
    # It writes by this module itself.
    from recdistill.runs.logged_models import model_id_of

    model_id = model_id_of(client, run_id, mark)
    linked = []
    for one in metrics:
        name, digest = datasets.get(one.key.partition("/")[0], (None, None))
        linked.append(Metric(one.key, one.value, one.timestamp, one.step, model_id, name, digest, run_id))
    return linked


def log_files(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Keep the files of a folder in the artifact folder ``path``."""
    client.log_artifacts(run_id, str(files), values["path"] or None)


def log_text(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Keep ``text`` as the artifact ``name``."""
    client.log_text(run_id, values["text"], values["name"])


def log_inputs(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log data sets as inputs.

    The store keeps one row a data set: of two processes that make it at the same moment the second is refused, and
    finds it when it asks again.
    """
    inputs = []
    for given in values["datasets"]:
        fields = {name: value for name, value in given.items() if name != "context"}
        inputs.append(DatasetInput(Dataset(**fields), [InputTag(MLFLOW_DATASET_CONTEXT, given["context"])]))
    for attempt in range(ATTEMPTS):
        try:
            client.log_inputs(run_id, inputs)
            return
        except MlflowException as error:
            if attempt == ATTEMPTS - 1 or is_silence(error):
                raise
            time.sleep(0.1 * 2**attempt)


def log_input(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log the one data set that a queue of recdistill 0.2.0 holds."""
    log_inputs(client, run_id, {"datasets": [{**values, "context": "training"}]}, files)


def end(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Set the status and the time of the end."""
    client.set_terminated(run_id, values["status"], values["time"])


def log_model(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log a recommender as an MLflow model; see `served_model.send_model`."""
    # It writes by this module itself.
    from recdistill.runs.served_model import send_model

    send_model(client, run_id, values, files)


def log_external_model(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log a model that has no files of its own; see `logged_models.send_external_model`."""
    from recdistill.runs.logged_models import send_external_model

    send_external_model(client, run_id, values, files)


#: What each kind of write does.
KINDS: dict[str, Perform] = {
    "batch": log_batch,
    "files": log_files,
    "text": log_text,
    "input": log_input,
    "inputs": log_inputs,
    "end": end,
    "model": log_model,
    "external_model": log_external_model,
}


def perform(write: Write, files: Path) -> None:
    """Make a write to the tracking store at hand. Raises what MLflow raises."""
    KINDS[write.kind](MlflowClient(), write.run_id, write.values, files)
