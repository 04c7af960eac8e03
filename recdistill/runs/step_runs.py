"""One MLflow run a step: opened, found again, continued after a kill, and marked FAILED with its reason.

The *entry run* is the one a user started, by ``mlflow run`` or from the command line. The step of that name claims
it; every other step it needs is a run nested in it.
"""

import functools
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES
from mlflow.utils.time import get_current_time_millis

from recdistill.config import Config
from recdistill.config.lineage import digest, key_parts, metric_contents, near_key
from recdistill.config.run_names import run_name
from recdistill.data.downloads import cache_dir
from recdistill.data.sequences import SequenceData
from recdistill.errors import Pruned
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.datasets import log_data
from recdistill.runs.experiment import chosen_experiment, describe_experiment, experiment_of_nested, how_to_open
from recdistill.runs.finished_runs import (
    find_finished,
    find_near,
    finished_run,
    linked_run,
    newest,
    options_of_run,
    run_of,
)
from recdistill.runs.folder_lock import locked
from recdistill.runs.logged_options import log_options, used_options
from recdistill.runs.measured_again import measure_again
from recdistill.runs.open_runs import end_left_open, hold, release
from recdistill.runs.outbox import LostStoreError, grace_seconds, outbox, post, read, send_left_behind
from recdistill.runs.provenance import CodeState, code_at_hand, differences
from recdistill.runs.registry import check_registry
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
    MEASURED_WITH,
    NAME,
    NEAR_KEY,
    PARENT,
    REASON,
    REUSED,
    RUN_NAME,
    STEP,
    VERSIONS_FILE,
    Kept,
    StepRun,
    reason,
)
from recdistill.runs.tracking_store import check_writable, fault, is_mistake, refusal
from recdistill.runs.writes import Write, batch

__all__ = [
    "StepRun",
    "entry_run",
    "find_finished",
    "find_near",
    "finished_run",
    "linked_run",
    "newest",
    "options_of_run",
    "runs_of_their_own",
    "step_run",
]

GENERATED_NAME = re.compile(r"([a-z]+)-([a-z]+)-\d+")


@dataclass
class EntryRun:
    """The run a user started.

    Attributes:
        run_id: of the run.
        step: that claims it.
        named: it has the name that it shall keep: the user's, or that of a sweep's trial.
        claimed: its own step writes to it.
        whole: it has all results of its step, and has ended FINISHED; what follows may fail.
    """

    run_id: str
    step: str
    named: bool = False
    claimed: bool = False
    whole: bool = False


class Entries(threading.local):
    """The entry runs of a thread, a trial's within that of its sweep; seeds that train together have each its own."""

    def __init__(self) -> None:
        self.runs: list[EntryRun] = []


_entries = Entries()
#: The run that new runs of this process are nested in where none is active; "" for none.
_parent = ""
#: Finished runs of which it was said that other code made them.
_announced: set[str] = set()


@contextmanager
def entry_run(step: str) -> Iterator[None]:
    """The user's run of ``step``: that of ``mlflow run``, or a new one. An error marks it FAILED and is raised.

    A run that has all results of its step is FINISHED, and found again, whatever fails behind them, as a registration.

    Before it begins, what earlier commands could not log is sent; before it ends, what waits is, for which it waits
    `grace_seconds` for the store. Raises InputError where the store cannot be used, a folder not be written, or where
    something still waits.
    """
    run = opened_entry(step)
    hold(run.info.run_id)
    failure: BaseException | None = None
    entry = EntryRun(run.info.run_id, step, named=NAME not in run.data.tags)
    try:
        check_writable(run.info.artifact_uri)
        for left in send_left_behind():
            print(
                f"{left.writes} writes of earlier commands wait for {left.address}; see `recdistill sync`", flush=True
            )
        with claimed_by_its_step(entry):
            yield
        print(f"runs, best first: {how_to_open(run.info.experiment_id)}", flush=True)
    except BaseException as error:
        failure = fault(error) or error
        post(batch(run.info.run_id, tags={REASON: reason(failure)}))
        if failure is error:
            raise
        raise failure from error
    finally:
        end_run(run.info.run_id, "FINISHED" if failure is None or entry.whole else "FAILED")
        # At the end: what a step continues from its checkpoint it has marked itself, with a link.
        end_left_open()
        wait_for_store(failure)


def opened_entry(step: str) -> Run:
    """The entry run, begun. Raises InputError, one line that says what to do, where that cannot be."""
    launched = bool(os.environ.get("MLFLOW_RUN_ID"))
    try:
        # With its tags from the first moment: a command may be killed in the next.
        experiment = None if launched else chosen_experiment()
        place = None if experiment is None else experiment.experiment_id
        tags = {STEP: step} | ({} if launched else {NAME: step})
        run: Run = mlflow.start_run(run_name=None if launched else step, experiment_id=place, tags=tags)
        describe_experiment(experiment or MlflowClient().get_experiment(run.info.experiment_id))
        if launched and is_generated(run.info.run_name or ""):
            MlflowClient().log_batch(run.info.run_id, tags=[RunTag(RUN_NAME, step), RunTag(NAME, step)])
            run = mlflow.get_run(run.info.run_id)
    except Exception as error:
        # MLflow, its databases' drivers and its file systems raise many kinds.
        raise refusal(error) from None
    return run


def is_generated(name: str) -> bool:
    """Whether MLflow made up a run's name, such as ``gentle-fox-123``, because the user gave none."""
    words = GENERATED_NAME.fullmatch(name)
    return words is not None and all(
        word in {one.lower() for one in known}
        for word, known in zip(words.groups(), (_GENERATOR_PREDICATES, _GENERATOR_NOUNS), strict=True)
    )


def end_run(run_id: str, status: str) -> None:
    """End the active run ``run_id``: behind what waits to be logged in it."""
    box, time = outbox(), get_current_time_millis()
    try:
        # Where the store does not answer, MLflow still forgets that the run is active.
        waits = not box.flush(now=True)
        mlflow.end_run(status)
    except Exception as error:
        if is_mistake(error):
            raise
        waits = True
    if waits:
        post(Write("end", run_id, {"status": status, "time": time}))
    release(run_id)


def wait_for_store(failure: BaseException | None) -> None:
    """Send what still waits, and wait for the store.

    Raises LostStoreError where something waits in the end; after a failure that is printed, and nobody waits.
    """
    box = outbox()
    if box.drain(grace_seconds() if failure is None and box.patient else 0):
        send_left_behind()
    elif failure is None:
        raise box.error()
    elif not isinstance(failure, LostStoreError):
        print(box.error(), file=sys.stderr, flush=True)


@contextmanager
def claimable(run_id: str, step: str, *, named: bool = False) -> Iterator[None]:
    """While it lasts, the run is the entry run: the step of that name claims it, and names it if not ``named``."""
    with claimed_by_its_step(EntryRun(run_id, step, named)):
        yield


@contextmanager
def claimed_by_its_step(entry: EntryRun) -> Iterator[None]:
    """While it lasts, ``entry`` is the entry run."""
    _entries.runs.append(entry)
    try:
        yield
    finally:
        _entries.runs.pop()


def nest_runs_in(run_id: str) -> None:
    """From now on this process, a worker of another one, nests its runs in that one's run."""
    global _parent
    _parent = run_id


@contextmanager
def runs_of_their_own() -> Iterator[None]:
    """While it lasts, no step claims the entry run, also one that is of its step."""
    if not _entries.runs:
        yield
        return
    with claimable(_entries.runs[-1].run_id, ""):
        yield


def claimed_entry(step: str) -> str | None:
    """Id of the entry run where it is of this step and not claimed yet, which it is then; None where there is none."""
    if not _entries.runs or _entries.runs[-1].claimed or _entries.runs[-1].step != step:
        return None
    _entries.runs[-1].claimed = True
    return _entries.runs[-1].run_id


@contextmanager
def step_run(
    step: str,
    config: Config,
    *,
    data: SequenceData | str,
    upstream: Mapping[str, StepRun] | None = None,
    kept: Kept = "all",
    contents: Mapping[str, Any] | None = None,
) -> Iterator[StepRun]:
    """The run that holds this step's results: a finished one with the same key (``reused``), or one to write to.

    Args:
        step: its name.
        config: its options; those in use are logged.
        data: what it reads, or only the fingerprint of the data that the runs which it reads were made for.
        upstream: runs it starts from, by step.
        kept: ``results`` where the run keeps its results alone; it is then not found in place of a whole run.
        contents: what else its result depends on, as JSON values by a name that is no option's.

    An error marks the run FAILED (`Pruned` and an interrupt: KILLED), with the reason as a tag, and is raised again.
    """
    opening = Opening.of(step, config, data, upstream or {}, kept, contents or {})
    key, entry_id = opening.key, claimed_entry(step)
    work = cache_dir() / "runs" / key
    with locked(work):
        found = None if config.force else find_finished(key, upstream)
        if found is not None:
            if entry_id is not None:
                post(batch(entry_id, tags=opening.naming()))
                log_options(entry_id, config, opening.options)
            # Left by a command that ended before the store had its results.
            shutil.rmtree(work, ignore_errors=True)
            yield reused_run(found, key, opening.fingerprint, entry_id)
            return
        check_registry(str(config.values().get("register", "")))
        run = StepRun(opening.run_id(entry_id), key, opening.fingerprint, reused=False, work=work, kept=kept)
        try:
            continue_from_killed(run, step, force=config.force)
            opening.log(run.run_id)
            yield run
        except BaseException as error:
            post(batch(run.run_id, tags={REASON: reason(fault(error) or error)}))
            if isinstance(error, Pruned):
                # No later run continues a trial that was given up.
                shutil.rmtree(work, ignore_errors=True)
            if entry_id is None:
                failed = isinstance(error, Exception) and not isinstance(error, Pruned)
                end_run(run.run_id, "FAILED" if failed else "KILLED")
            raise
        keep_key(run)
        if entry_id is None:
            end_run(run.run_id, "FINISHED")
        outbox().afterwards(lambda: shutil.rmtree(work, ignore_errors=True))


def keep_key(run: StepRun) -> None:
    """Make a run that has all its results findable: only such runs carry their key.

    The entry run ends with it, though its command goes on: what follows may fail, or be killed.
    """
    post(batch(run.run_id, tags={KEY: run.key}))
    if _entries.runs and _entries.runs[-1].run_id == run.run_id:
        post(Write("end", run.run_id, {"status": "FINISHED", "time": get_current_time_millis()}))
        _entries.runs[-1].whole = True


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
        cls,
        step: str,
        config: Config,
        data: SequenceData | str,
        upstream: Mapping[str, StepRun],
        kept: Kept = "all",
        contents: Mapping[str, Any] | None = None,
    ) -> "Opening":
        """Raises InputError where a file that an option names cannot be read."""
        fingerprint = data if isinstance(data, str) else data.fingerprint
        parts = key_parts(step, config, fingerprint, {name: run.key for name, run in upstream.items()})
        parts["options"] |= contents or {}
        code = code_at_hand()
        tags = {STEP: step, FINGERPRINT: fingerprint, COMMIT: code.commit, DIRTY: str(bool(code.changes)).lower()}
        tags |= {f"recdistill.{name}_run_id": run.run_id for name, run in upstream.items() if run.run_id}
        tags |= {MEASURED_WITH: json.dumps(own)} if (own := metric_contents()) else {}
        if kept == "all":
            tags[NEAR_KEY] = near_key(step, config, fingerprint, contents)
        else:
            parts |= {"kept": kept}
            tags[KEPT] = kept
        options = used_options(config, upstream)
        return cls(step, config, None if isinstance(data, str) else data, fingerprint, parts, tags, options)

    @property
    def key(self) -> str:
        """What runs share that must have the same result."""
        return digest(self.parts)

    def naming(self) -> dict[str, str]:
        """The tags that give the entry run, which is this step's, its name; none where it keeps another."""
        if _entries.runs and _entries.runs[-1].named:
            return {}
        name = run_name(self.step, self.config)
        return {RUN_NAME: name, NAME: name}

    def run_id(self, entry_id: str | None) -> str:
        """Id of the run to write to: the entry run, or a new one; either gets all its tags in one call."""
        if entry_id is not None:
            post(batch(entry_id, tags={**self.tags, **self.naming()}))
            return entry_id
        nested = mlflow.active_run() is not None
        name = run_name(self.step, self.config)
        tags = {**self.tags, NAME: name}
        if _parent and not nested:
            tags[PARENT] = _parent
        place = read(experiment_of_nested)
        begin = functools.partial(mlflow.start_run, run_name=name, experiment_id=place, nested=nested, tags=tags)
        run_id = str(read(begin).info.run_id)
        hold(run_id)
        return run_id

    def log(self, run_id: str) -> None:
        """Log options, what the key is made of, code, versions and data."""
        code = code_at_hand()
        log_options(run_id, self.config, self.options)
        kept = {CONFIG_FILE: self.config.values(), KEY_FILE: self.parts, VERSIONS_FILE: code.versions}
        texts = {name: json.dumps(dict(values), indent=2) for name, values in kept.items()}
        if code.changes:
            texts[CHANGES_FILE] = code.changes
        for name, text in texts.items():
            post(Write("text", run_id, {"name": name, "text": text}))
        if self.data is not None:
            log_data(run_id, self.data)


def reused_run(found: Run, key: str, fingerprint: str, entry_id: str | None) -> StepRun:
    """A finished run in place of a new one; the entry run, where there is one, says so and shows its metrics.

    Prints a line, once a process, where other code than that at hand made it; what it lacks by the user's metrics is
    measured, see `measure_again`.
    """
    run = StepRun(found.info.run_id, key, fingerprint, reused=True)
    measure_again(found)
    if entry_id is not None:
        post(batch(entry_id, tags={REUSED: run.run_id}))
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


def continue_from_killed(run: StepRun, step: str, *, force: bool = False) -> None:
    """Mark the killed run whose checkpoints are in the folder ``work`` KILLED, and note this run as the next.

    Where other code made the checkpoints a line says so; with ``force``, which asks for this code, they are removed.
    """
    note = run.work / "run.json"
    run.work.mkdir(parents=True, exist_ok=True)
    entry_run_id = _entries.runs[-1].run_id if _entries.runs else run.run_id
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
        stale = {before["run_id"]: run.run_id}
        if not alive(before["process"]):
            stale.setdefault(before["entry_run_id"], entry_run_id)
        for run_id, next_run_id in stale.items():
            if run_id != next_run_id and run_of(run_id).info.status == "RUNNING":
                post(batch(run_id, tags={CONTINUED: next_run_id}))
                post(Write("end", run_id, {"status": "KILLED", "time": get_current_time_millis()}))
    except (OSError, ValueError, KeyError, MlflowException):
        # No note, or of another tracking store: the checkpoint is good all the same.
        pass
    differing = differences(code_of_note(note), code_at_hand())
    if differing:
        said = f"{step}: a killed run's checkpoint was made by other code ({'; '.join(differing)})"
        if force:
            shutil.rmtree(run.work)
            run.work.mkdir()
        print(f"{said}; {'begun anew' if force else 'it goes on from there, force=true begins anew'}", flush=True)
    about = {"run_id": run.run_id, "entry_run_id": entry_run_id, "process": os.getpid(), "code": asdict(code_at_hand())}
    note.write_text(json.dumps(about), encoding="utf-8")


def code_of_note(note: Path) -> CodeState:
    """The code of the run that left its checkpoints; that at hand where nothing tells."""
    try:
        return CodeState(**json.loads(note.read_text(encoding="utf-8"))["code"])
    except (OSError, ValueError, KeyError, TypeError):
        return code_at_hand()


def alive(process: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
