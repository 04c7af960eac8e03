"""The runs of a sweep: its own, its trials nested in it, and their states, also after a kill.

A trial's run is the *entry run* of its step: the step of that name claims it and writes to it. Optuna's storage has
the state of each trial; `settle_trials` makes the runs agree.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.time import get_current_time_millis

from recdistill.config import Config
from recdistill.config.lineage import digest
from recdistill.data.sequences import SequenceData
from recdistill.errors import Pruned
from recdistill.runs.finished_runs import find_finished, has_artifacts, run_of, search
from recdistill.runs.logged_options import used_options
from recdistill.runs.open_runs import hold
from recdistill.runs.outbox import post, read
from recdistill.runs.run import CONTINUED, KEY, NAME, PARENT, REASON, STEP, StepRun, reason
from recdistill.runs.step_runs import Opening, claimable, claimed_entry, end_run, reused_run
from recdistill.runs.tracking_store import fault
from recdistill.runs.writes import Write, batch

STUDY, STUDY_ID, TRIAL, STATE = ("recdistill.study", "recdistill.study_id", "recdistill.trial", "recdistill.state")
#: Status of a run by the state of its trial.
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "KILLED"}


@dataclass(frozen=True)
class TrackingPlace:
    """The tracking store and experiment of this process, for another one."""

    uri: str
    experiment_id: str


def tracking_place() -> TrackingPlace:
    """Where the active run is."""
    active = mlflow.active_run()
    assert active is not None
    return TrackingPlace(mlflow.get_tracking_uri(), active.info.experiment_id)


def use_tracking(place: TrackingPlace) -> None:
    """Have this process log there."""
    mlflow.set_tracking_uri(place.uri)
    mlflow.set_experiment(experiment_id=place.experiment_id)


def folder_of_tracking() -> Path:
    """The folder of the tracking store where it is a file, else the working folder."""
    parsed = urlparse(mlflow.get_tracking_uri())
    if parsed.scheme not in ("sqlite", "file", ""):
        return Path.cwd()
    text = unquote(parsed.path)
    path = Path(text.removeprefix("/") if parsed.scheme == "sqlite" else text)
    return (path if path.is_absolute() else Path.cwd() / path).parent


@contextmanager
def sweep_run(
    config: Config, *, data: SequenceData, parts: Mapping[str, Any], searched: Collection[str] = ()
) -> Iterator[StepRun]:
    """The run that a sweep writes to, or a finished one with the same key (``reused``).

    Args:
        config: its options.
        data: what its trials read.
        parts: all that its answer depends on, as JSON values, which its key is made of.
        searched: options that differ from trial to trial: none of them is the sweep's.

    Unlike `runs.step_run` it does not wait for another process with the same key: it joins that one's study.
    """
    entry_id, key = claimed_entry("sweep"), digest(parts)
    found = None if config.force else find_finished(key)
    if found is not None:
        yield reused_run(found, key, data.fingerprint, entry_id)
        return
    options = used_options(config, {}, left_out=searched)
    opening = replace(Opening.of("sweep", config, data, {}), parts=parts, options=options)
    run = StepRun(opening.run_id(entry_id), key, data.fingerprint, reused=False)
    try:
        opening.log(run.run_id)
        yield run
    except BaseException as error:
        post(batch(run.run_id, tags={REASON: reason(fault(error) or error)}))
        if entry_id is None:
            end_run(run.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    if entry_id is None:
        end_run(run.run_id, "FINISHED")


def keep(run: StepRun) -> None:
    """Let a finished sweep be found again by its key."""
    post(batch(run.run_id, tags={KEY: run.key}))


@contextmanager
def child_run(
    step: str, parent_run_id: str, name: str, tags: Mapping[str, str], params: Mapping[str, object]
) -> Iterator[str]:
    """A run nested in ``parent_run_id``, in this or another process, that the step ``step`` will claim.

    It ends FINISHED; KILLED where it is left with `Pruned` or by an interrupt; FAILED with any other error. Its state
    is a tag.
    """
    place = run_of(parent_run_id).info.experiment_id
    own = {PARENT: parent_run_id, STEP: step, STATE: "running", NAME: name} | dict(tags)
    created = read(lambda: MlflowClient().create_run(place, tags=resolve_tags(own), run_name=name))
    run_id: str = created.info.run_id
    hold(run_id)
    read(lambda: mlflow.start_run(run_id=run_id, nested=mlflow.active_run() is not None))
    state = "complete"
    try:
        # Where a finished run of the same settings is found, the step logs no parameters.
        post(batch(run_id, params=params))
        with claimable(run_id, step, named=True):
            yield run_id
    except BaseException as error:
        state = "killed" if not isinstance(error, Exception) else "pruned" if isinstance(error, Pruned) else "failed"
        post(batch(run_id, tags={REASON: reason(fault(error) or error)}))
        raise
    finally:
        post(batch(run_id, tags={STATE: state}))
        end_run(run_id, STATUS[state])


def log_child_metrics(run_id: str, metrics: Mapping[str, float]) -> None:
    """Log a trial's own numbers, such as a mean over seeds."""
    StepRun(run_id, "", "", reused=False).log_metrics(metrics)


def log_values(run_id: str, metrics: Mapping[str, list[tuple[int, float]]]) -> None:
    """Log whole curves, ``(step, value)`` each."""
    now = get_current_time_millis()
    points = [(name, float(value), now, step) for name, curve in metrics.items() for step, value in curve]
    post(batch(run_id, metrics=points))


def tag_run(run_id: str, tags: Mapping[str, object]) -> None:
    """Set tags, ``recdistill.`` before each name."""
    post(batch(run_id, tags={f"recdistill.{name}": value for name, value in tags.items()}))


def settle_trials(study_id: str, states: Mapping[int, str]) -> None:
    """Make the runs of a study agree with its storage.

    Args:
        study_id: of the tag.
        states: ``complete``, ``pruned``, ``failed`` or ``killed`` by trial number; trials that are not here still run.
    """
    for run in study_runs(study_id):
        state = states.get(int(run.data.tags[TRIAL])) if TRIAL in run.data.tags else None
        if state is None or (run.data.tags.get(STATE) == state and run.info.status == STATUS[state]):
            continue
        post(batch(run.info.run_id, tags={STATE: state}))
        end_run_of_another(run.info.run_id, STATUS[state])
        end_nested(run.info.run_id)


def end_run_of_another(run_id: str, status: str) -> None:
    """End a run that this process has not opened."""
    post(Write("end", run_id, {"status": status, "time": get_current_time_millis()}))


def end_nested(run_id: str) -> None:
    """Mark runs nested in a dead one, at any depth, KILLED where they are still RUNNING."""
    for run in search(f"tags.`{PARENT}` = '{run_id}'"):
        if run.info.status == "RUNNING":
            end_run_of_another(run.info.run_id, "KILLED")
        end_nested(run.info.run_id)


def end_unsettled(study_id: str) -> None:
    """Mark final trainings of a study that a killed process has left RUNNING, KILLED."""
    for run in study_runs(study_id):
        if TRIAL not in run.data.tags and run.info.status == "RUNNING":
            end_run_of_another(run.info.run_id, "KILLED")
            end_nested(run.info.run_id)


def study_runs(study_id: str) -> list[Run]:
    """All runs of a study, trials and final trainings."""
    return search(f"tags.`{STUDY_ID}` = '{study_id}'")


def adopt(study_id: str, run_id: str, before: str) -> None:
    """Nest a study's trials in ``run_id``, and end the sweep's run ``before`` where its process was killed.

    Final trainings stay with the answer that they were made for.
    """
    for run in study_runs(study_id):
        if TRIAL in run.data.tags and run.data.tags.get(PARENT) != run_id:
            post(batch(run.info.run_id, tags={PARENT: run_id}))
    # In a tracking store that was begun anew, with a study that was kept, there is no such run.
    if before and before != run_id and status_of(before):
        post(batch(before, tags={CONTINUED: run_id}))
        end_killed(before)


def end_killed(run_id: str) -> None:
    """Mark the run of a killed command KILLED where it is still RUNNING."""
    if is_running(run_id):
        end_run_of_another(run_id, "KILLED")


def is_there(run_id: str) -> bool:
    """Whether the run is there and RUNNING, or FINISHED with its artifacts."""
    status = status_of(run_id)
    return status == "RUNNING" or (status == "FINISHED" and has_artifacts(run_id))


def is_running(run_id: str) -> bool:
    """Whether the run is there and RUNNING."""
    return status_of(run_id) == "RUNNING"


def status_of(run_id: str) -> str:
    """The run's status, empty where there is no such run or it was deleted.

    Raises LostStoreError, at once, where nobody answers.
    """
    try:
        # A command that waits here would give no sign of life meanwhile.
        info = read(lambda: mlflow.get_run(run_id), patience=0).info
    except MlflowException:
        return ""
    # MLflow still tells the status of a deleted run, which takes no tags.
    return str(info.status) if info.lifecycle_stage == LifecycleStage.ACTIVE else ""
