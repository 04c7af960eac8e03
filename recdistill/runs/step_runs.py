"""One MLflow run a step: opened, found again, continued after a kill, and marked FAILED with its reason.

The *entry run* is the one a user started, by ``mlflow run`` or from the command line. The step of that name claims
it; every other step it needs is a run nested in it.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recdistill.config import Config
from recdistill.config.lineage import digest, key_parts, near_key
from recdistill.data.downloads import cache_dir
from recdistill.data.sequences import SequenceData
from recdistill.errors import Pruned
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.datasets import log_data
from recdistill.runs.finished_runs import find_finished, find_near, finished_run, linked_run, newest, options_of_run
from recdistill.runs.folder_lock import locked
from recdistill.runs.logged_options import log_options, used_options
from recdistill.runs.provenance import CodeState, code_at_hand, differences
from recdistill.runs.run import (
    CHANGES_FILE,
    COMMIT,
    CONFIG_FILE,
    CONTINUED,
    DIRTY,
    FINGERPRINT,
    KEPT,
    KEY,
    KEY_FILE,
    NEAR_KEY,
    REASON,
    REUSED,
    STEP,
    VERSIONS_FILE,
    Kept,
    StepRun,
    reason,
)

__all__ = [
    "StepRun",
    "entry_run",
    "find_finished",
    "find_near",
    "finished_run",
    "linked_run",
    "newest",
    "options_of_run",
    "step_run",
    "ui_command",
]

GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


@dataclass
class EntryRun:
    """The run a user started; ``claimed`` once its own step writes to it."""

    run_id: str
    step: str
    claimed: bool = False


#: The entry runs of this process, a trial's within that of its sweep.
_entries: list[EntryRun] = []
#: Finished runs of which it was said that other code made them.
_announced: set[str] = set()


@contextmanager
def entry_run(step: str) -> Iterator[None]:
    """The user's run of ``step``: that of ``mlflow run``, or a new one. An error marks it FAILED and is raised."""
    launched = bool(os.environ.get("MLFLOW_RUN_ID"))
    # With its tags from the first moment: a command may be killed in the next.
    with mlflow.start_run(run_name=None if launched else step, tags={STEP: step}) as run:
        client = MlflowClient()
        if launched and GENERATED_NAME.fullmatch(run.info.run_name or ""):
            client.set_tag(run.info.run_id, "mlflow.runName", step)
        with claimable(run.info.run_id, step):
            try:
                yield
            except BaseException as error:
                client.set_tag(run.info.run_id, REASON, reason(error))
                raise


@contextmanager
def claimable(run_id: str, step: str) -> Iterator[None]:
    """While it lasts, the run is the entry run, which the step of that name claims."""
    _entries.append(EntryRun(run_id, step))
    try:
        yield
    finally:
        _entries.pop()


def claimed_entry(step: str) -> str | None:
    """Id of the entry run where it is of this step and not claimed yet, which it is then; None where there is none."""
    if not _entries or _entries[-1].claimed or _entries[-1].step != step:
        return None
    _entries[-1].claimed = True
    return _entries[-1].run_id


@contextmanager
def step_run(
    step: str,
    config: Config,
    *,
    data: SequenceData | str,
    upstream: Mapping[str, StepRun] | None = None,
    kept: Kept = "all",
) -> Iterator[StepRun]:
    """The run that holds this step's results: a finished one with the same key (``reused``), or one to write to.

    Args:
        step: its name.
        config: its options; those in use are logged.
        data: what it reads, or only the fingerprint of the data that the runs which it reads were made for.
        upstream: runs it starts from, by step.
        kept: ``results`` where the run keeps its results alone; it is then not found in place of a whole run.

    An error marks the run FAILED (`Pruned` and an interrupt: KILLED), with the reason as a tag, and is raised again.
    """
    opening = Opening.of(step, config, data, upstream or {}, kept)
    key, entry_id = opening.key, claimed_entry(step)
    work = cache_dir() / "runs" / key
    with locked(work):
        found = None if config.force else find_finished(key)
        if found is not None:
            if entry_id is not None:
                log_options(entry_id, config, opening.options)
            yield reused_run(found, key, opening.fingerprint, entry_id)
            return
        run = StepRun(opening.run_id(entry_id), key, opening.fingerprint, reused=False, work=work, kept=kept)
        try:
            continue_from_killed(run)
            opening.log(run.run_id)
            yield run
        except BaseException as error:
            MlflowClient().set_tag(run.run_id, REASON, reason(error))
            if isinstance(error, Pruned):
                # No later run continues a trial that was given up.
                shutil.rmtree(work, ignore_errors=True)
            if entry_id is None:
                failed = isinstance(error, Exception) and not isinstance(error, Pruned)
                mlflow.end_run("FAILED" if failed else "KILLED")
            raise
        # The key makes a run findable: only finished ones carry it.
        MlflowClient().set_tag(run.run_id, KEY, key)
        if entry_id is None:
            mlflow.end_run("FINISHED")
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class Opening:
    """All that is logged of a run before its step begins.

    Attributes:
        step: its name.
        config: its options.
        data: what it reads, None where only the fingerprint is known.
        fingerprint: of the data.
        parts: what its key is made of, see `config.lineage.key_parts`.
        tags: of the run.
        options: what is logged as parameters, see `logged_options`.
    """

    step: str
    config: Config
    data: SequenceData | None
    fingerprint: str
    parts: Mapping[str, Any]
    tags: Mapping[str, str]
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls, step: str, config: Config, data: SequenceData | str, upstream: Mapping[str, StepRun], kept: Kept = "all"
    ) -> "Opening":
        """Raises InputError where a file that an option names cannot be read."""
        fingerprint = data if isinstance(data, str) else data.fingerprint
        parts = key_parts(step, config, fingerprint, {name: run.key for name, run in upstream.items()})
        code = code_at_hand()
        tags = {STEP: step, FINGERPRINT: fingerprint, COMMIT: code.commit, DIRTY: str(bool(code.changes)).lower()}
        tags |= {f"recdistill.{name}_run_id": run.run_id for name, run in upstream.items() if run.run_id}
        if kept == "all":
            tags[NEAR_KEY] = near_key(step, config, fingerprint)
        else:
            parts |= {"kept": kept}
            tags[KEPT] = kept
        options = used_options(config, upstream)
        return cls(step, config, None if isinstance(data, str) else data, fingerprint, parts, tags, options)

    @property
    def key(self) -> str:
        """What runs share that must have the same result."""
        return digest(self.parts)

    def run_id(self, entry_id: str | None) -> str:
        """Id of the run to write to: the entry run, or a new one; either gets all its tags in one call."""
        if entry_id is not None:
            MlflowClient().log_batch(entry_id, tags=[RunTag(name, text) for name, text in self.tags.items()])
            return entry_id
        nested = mlflow.active_run() is not None
        return str(mlflow.start_run(run_name=self.step, nested=nested, tags=dict(self.tags)).info.run_id)

    def log(self, run_id: str) -> None:
        """Log options, what the key is made of, code, versions and data."""
        client, code = MlflowClient(), code_at_hand()
        log_options(run_id, self.config, self.options)
        client.log_dict(run_id, self.config.values(), CONFIG_FILE)
        client.log_dict(run_id, dict(self.parts), KEY_FILE)
        client.log_dict(run_id, dict(code.versions), VERSIONS_FILE)
        if code.changes:
            client.log_text(run_id, code.changes, CHANGES_FILE)
        if self.data is not None:
            log_data(run_id, self.data)


def reused_run(found: Run, key: str, fingerprint: str, entry_id: str | None) -> StepRun:
    """A finished run in place of a new one; the entry run, where there is one, says so and shows its metrics.

    Prints a line, once a process, where other code than that at hand made it.
    """
    run = StepRun(found.info.run_id, key, fingerprint, reused=True)
    if entry_id is not None:
        MlflowClient().set_tag(entry_id, REUSED, run.run_id)
        StepRun(entry_id, key, fingerprint, reused=False).log_metrics(run.metrics())
    differing = differences(code_of(found), code_at_hand())
    if differing and run.run_id not in _announced:
        _announced.add(run.run_id)
        step = found.data.tags.get(STEP, "")
        print(
            f"{step}: run {run.run_id} was made by other code ({'; '.join(differing)}); force=true makes it again",
            flush=True,
        )
    return run


def code_of(run: Run) -> CodeState:
    """The code that made a run; what the run does not say counts as the code at hand."""
    here, tags = code_at_hand(), run.data.tags

    def text(name: str, otherwise: str) -> str:
        try:
            # Line ends as they are: a diff may hold both kinds.
            return local_artifact(f"{run.info.artifact_uri}/{name}").read_bytes().decode()
        except (MlflowException, OSError):
            return otherwise

    changes = text(CHANGES_FILE, here.changes) if tags.get(DIRTY) == "true" else ""
    return CodeState(tags.get(COMMIT, here.commit), changes, json.loads(text(VERSIONS_FILE, "{}")))


def continue_from_killed(run: StepRun) -> None:
    """Mark the killed run whose checkpoints are in the folder ``work`` KILLED, and note this run as the next."""
    note = run.work / "run.json"
    run.work.mkdir(parents=True, exist_ok=True)
    client = MlflowClient()
    entry_run_id = _entries[-1].run_id if _entries else run.run_id
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
        stale = {before["run_id"]: run.run_id}
        if not alive(before["process"]):
            stale.setdefault(before["entry_run_id"], entry_run_id)
        for run_id, next_run_id in stale.items():
            if run_id != next_run_id and client.get_run(run_id).info.status == "RUNNING":
                client.set_tag(run_id, CONTINUED, next_run_id)
                client.set_terminated(run_id, "KILLED")
    except (OSError, ValueError, KeyError, MlflowException):
        # No note, or of another tracking store: the checkpoint is good all the same.
        pass
    note.write_text(json.dumps({"run_id": run.run_id, "entry_run_id": entry_run_id, "process": os.getpid()}))


def alive(process: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def ui_command() -> str:
    """The command that opens the MLflow UI on the store at hand."""
    uri = mlflow.get_tracking_uri()
    return f"mlflow ui --backend-store-uri {uri}" if "://" in uri and not uri.startswith("http") else f"open {uri}"
