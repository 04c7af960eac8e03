"""A run as a step sees it: what it logs to, and what it reads from a finished one."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from recdistill.errors import InputError, one_line
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.outbox import LostStoreError, outbox, post, read
from recdistill.runs.writes import RUN_KEY, Write, batch

#: Tags; docs/TRACKING.md says what each means.
STEP, KEY, NEAR_KEY = "recdistill.step", RUN_KEY, "recdistill.near_key"
FINGERPRINT, REASON = "recdistill.fingerprint", "recdistill.failure"
REUSED, CONTINUED = "recdistill.reused_run_id", "recdistill.continued_in"
#: The name that a run was given by us; where it has another now, a person has named it.
NAME, RUN_NAME = "recdistill.name", "mlflow.runName"
COMMIT, DIRTY, KEPT = "recdistill.git_commit", "recdistill.git_dirty", "recdistill.kept"
TERMS = "recdistill.terms"
#: Digest of the tensors in those artifact folders of a run that other runs start from.
READ = "recdistill.read"
READ_FOLDERS = ("student", "teacher_outputs")
#: Digests of the user's metrics that a run was measured with, as JSON.
MEASURED_WITH = "recdistill.metrics"
#: Without its prefix: of a student that was trained on all interactions, and measured on none.
REFIT = "refit"
DESCRIPTION = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
#: Of the teacher without an LLM, and of its student, against which `main` and `worth` hold the LLM's.
CONTROL = "recdistill.control"
#: Artifacts.
CONFIG_FILE, KEY_FILE, VERSIONS_FILE, CHANGES_FILE = "config.json", "key.json", "versions.json", "code.diff"

Kept = Literal["all", "results"]
#: Told of the metrics that this process logs.
_listeners: list[Callable[[Mapping[str, float]], None]] = []


@contextmanager
def listening(listener: Callable[[Mapping[str, float]], None]) -> Iterator[None]:
    """While it lasts, ``listener`` is told of all metrics that this process logs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@dataclass
class StepRun:
    """A run that a step writes to, or a finished one that it found.

    Attributes:
        run_id: of the run that holds the step's results.
        key: what runs share that must have the same result; see `config.lineage.run_key`.
        fingerprint: of the data.
        reused: the run was finished before; there is nothing to do.
        work: folder for checkpoints, kept after a kill and removed in the end.
        kept: ``results`` for a run without MLflow model, recommendations and figures, as a trial of a sweep is.
    """

    run_id: str
    key: str
    fingerprint: str
    reused: bool
    work: Path = field(default_factory=Path)
    kept: Kept = "all"

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int = 0,
        *,
        model: str = "",
        datasets: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Log numbers at an epoch; with ``model``, a mark or an id, as that model's too, see `writes.batch`."""
        now = get_current_time_millis()
        points = [(name, float(value), now, step) for name, value in metrics.items()]
        for told in _listeners:
            told(metrics)
        post(batch(self.run_id, metrics=points, model=model, datasets=datasets))

    def log_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Have ``write`` fill a temporary folder, and keep it as the artifact folder ``name``.

        Of one of `READ_FOLDERS` a tag says what other runs read of it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            write(folder)
            if name in READ_FOLDERS:
                post(batch(self.run_id, tags={READ: tensors_digest(folder)}))
            post(Write("files", self.run_id, {"path": name}), folder)

    def log_file(self, path: Path, folder: str) -> None:
        """Keep a file in the artifact folder ``folder``."""
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copy(path, scratch)
            post(Write("files", self.run_id, {"path": folder}), Path(scratch))

    def log_text(self, name: str, text: str) -> None:
        """Keep a text as the artifact ``name``."""
        post(Write("text", self.run_id, {"name": name, "text": text}))

    def log_ranks(self, ranks: Mapping[str, pd.DataFrame]) -> None:
        """Keep each evaluated sample's rank as ``ranks/<part>.parquet``; parts are ``val`` and ``test``."""

        def write(folder: Path) -> None:
            folder.mkdir()
            for part, frame in ranks.items():
                frame.to_parquet(folder / f"{part}.parquet", index=False)

        self.log_folder("ranks", write)

    def describe(self, text: str) -> None:
        """Set the run's description, which the UI shows on top."""
        post(batch(self.run_id, tags={DESCRIPTION: text}))

    def mark_control(self, name: str) -> None:
        """Call the run ``name``, and have nobody take it for the newest of its step (`CONTROL`)."""
        post(batch(self.run_id, tags={CONTROL: "true", NAME: name, RUN_NAME: name}))

    def tag_terms(self, terms: str) -> None:
        """Name the terms of the language models that the run's results were made with, where there are any."""
        if terms:
            post(batch(self.run_id, tags={TERMS: terms}))

    def tag(self, name: str, value: Any) -> None:
        """Set the tag ``recdistill.<name>``."""
        post(batch(self.run_id, tags={f"recdistill.{name}": value}))

    def artifact(self, name: str) -> Path:
        """Local path of an artifact. Raises InputError where the run has none of that name."""
        try:
            # By its address, which is read in place: MLflow copies what is asked for by a run's id.
            return local_artifact(f"{read(lambda: mlflow.get_run(self.run_id)).info.artifact_uri}/{name}")
        except (MlflowException, OSError):
            if outbox().waits_for(self.run_id):
                raise outbox().error() from None
            raise InputError(f"run {self.run_id}: has no artifact {name}; choose another run") from None

    def metrics(self) -> dict[str, float]:
        """The run's last metrics; where the store does not answer, those that this process logged or has read."""
        box = outbox()
        known = box.metrics.get(self.run_id)
        try:
            found = dict(box.read(lambda: mlflow.get_run(self.run_id), 0 if known else None).data.metrics)
        except LostStoreError:
            if known is None:
                raise
            return {name: value for name, (_, _, value) in known.items()}
        # What this process logged may wait yet.
        found |= {name: value for name, (_, _, value) in (known or {}).items()}
        if self.reused:
            box.metrics[self.run_id] = {name: (0, 0, value) for name, value in found.items()}
        return found


def tensors_digest(folder: Path) -> str:
    """SHA-256 over names and content of a folder's files of tensors: what else lies there follows from the options."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{path.relative_to(folder).as_posix()} {content} ".encode())
    return found.hexdigest()


def reason(error: BaseException) -> str:
    """One line that says what went wrong."""
    text = one_line(error, 450)
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
