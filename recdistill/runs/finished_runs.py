"""Finished runs found again: by key, by id, or the newest of a step."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recdistill.errors import InputError
from recdistill.runs.outbox import read
from recdistill.runs.run import (
    CONFIG_FILE,
    CONTROL,
    FINGERPRINT,
    KEPT,
    KEY,
    NEAR_KEY,
    READ,
    REFIT,
    REUSED,
    STEP,
    StepRun,
)
from recdistill.runs.tracking_store import tracking_address

#: Tags of runs that nobody asked for by themselves: a sweep's trials, which keep no model to serve, and controls.
NOT_ASKED_FOR = ("recdistill.trial", KEPT, CONTROL)
#: What begins the names of a run's results.
RANKED = ("val/", "test/")


def search(condition: str) -> list[Run]:
    """Runs of all experiments that fit an MLflow filter, newest first."""
    found = read(
        lambda: mlflow.search_runs(
            filter_string=condition, search_all_experiments=True, order_by=["start_time DESC"], output_format="list"
        )
    )
    return [run for run in found if isinstance(run, Run)]


def run_of(run_id: str) -> Run:
    """A run. Raises MlflowException where there is none, LostStoreError where the store does not answer."""
    return read(lambda: mlflow.get_run(run_id))


def has_artifacts(run_id: str) -> bool:
    """Whether artifacts of a run are there."""
    return bool(read(lambda: MlflowClient().list_artifacts(run_id)))


def find_finished(key: str, upstream: Mapping[str, StepRun] | None = None) -> Run | None:
    """The newest finished run with this key, in any experiment, whose artifacts are still there.

    ``upstream`` are the runs that it is to start from, by step. A key has only their keys, which a run that was made
    again by ``force`` shares with the one before it: a run that started from another one is found where both of these
    came out the same.
    """
    for run in search(f"tags.`{KEY}` = '{key}' and attributes.status = 'FINISHED'"):
        if has_artifacts(run.info.run_id) and starts_from(run, upstream or {}):
            return run
    return None


def starts_from(run: Run, upstream: Mapping[str, StepRun]) -> bool:
    """Whether a run started from these, or from others of the same results."""
    made_from = {step: (run.data.tags.get(f"recdistill.{step}_run_id", ""), of.run_id) for step, of in upstream.items()}
    return all(one == other or not (one and other) or same_results(one, other) for one, other in made_from.values())


def same_results(one: str, other: str) -> bool:
    """Whether what other runs read of two is the same, to the last bit.

    Runs of earlier versions, which do not say what that is, are the same where they were measured, and rank alike.
    Where nothing can be compared, as of a run that is gone for good, they are not the same.
    """
    try:
        runs = [run_of(run_id) for run_id in (one, other)]
    except MlflowException:
        return False
    read_of = [run.data.tags.get(READ) for run in runs]
    if all(read_of):
        return read_of[0] == read_of[1]
    ranked = [{name: value for name, value in run.data.metrics.items() if name.startswith(RANKED)} for run in runs]
    return bool(ranked[0]) and ranked[0] == ranked[1]


def find_near(near_key: str) -> StepRun | None:
    """The newest finished run with this near key (`config.lineage.near_key`)."""
    for run in search(f"tags.`{NEAR_KEY}` = '{near_key}' and attributes.status = 'FINISHED'"):
        tags = run.data.tags
        if KEY in tags and has_artifacts(run.info.run_id):
            return StepRun(run.info.run_id, tags[KEY], tags.get(FINGERPRINT, ""), reused=True)
    return None


def finished_run(run_id: str, step: str, fingerprint: str | None = None, option: str = "") -> StepRun:
    """The run that a user named by ``option``.

    Raises InputError unless it is a finished run of ``step`` and, where a fingerprint is given, of that data.
    """
    option = option or f"{step}_run_id"
    try:
        run = run_of(run_id)
    except MlflowException:
        raise InputError(f"{option}={run_id}: no such run in {tracking_address()}; see the ids in mlflow ui") from None
    tags = run.data.tags
    if REUSED in tags:
        return finished_run(tags[REUSED], step, fingerprint, option)
    if tags.get(STEP) != step:
        raise InputError(f"{option}={run_id}: is a {tags.get(STEP, 'foreign')} run, not a {step} run")
    if run.info.status != "FINISHED":
        raise InputError(f"{option}={run_id}: is {run.info.status}, not FINISHED; choose a finished run")
    if fingerprint is not None and f"recdistill.{REFIT}" in tags:
        raise InputError(
            f"{option}={run_id}: is a refit, trained on what this data holds out; choose the run that it refits"
        )
    found = StepRun(run_id, tags.get(KEY, run_id), tags.get(FINGERPRINT, ""), reused=True)
    if fingerprint is not None:
        check_data(
            found, fingerprint, f"{option}={run_id}", f"choose a {step} run of this data, or leave {option} empty"
        )
    return found


def check_data(run: StepRun, fingerprint: str, named: str, advice: str = "give the data as they were") -> None:
    """Raise InputError unless a run is of the data with this fingerprint; ``named`` is the option that names it."""
    if run.fingerprint != fingerprint:
        raise InputError(
            f"{named}: was made for data {run.fingerprint[:12]}, not for this data {fingerprint[:12]}; {advice}"
        )


def linked_run(run: StepRun, step: str) -> StepRun:
    """The run of ``step`` that a run was made from. Raises InputError where it is gone."""
    made_from = run_of(run.run_id).data.tags.get(f"recdistill.{step}_run_id", "none")
    return finished_run(made_from, step, run.fingerprint)


def options_of_run(run_id: str, steps: Iterable[str], option: str = "run_id") -> tuple[StepRun, str, dict[str, Any]]:
    """A finished run of one of ``steps`` that a user named by ``option``, its step and its options.

    Raises InputError where it is another.
    """
    try:
        tags = run_of(run_id).data.tags
    except MlflowException:
        raise InputError(f"{option}={run_id}: no such run in {tracking_address()}; see the ids in mlflow ui") from None
    step = tags.get(STEP, "foreign")
    if step not in steps:
        raise InputError(f"{option}={run_id}: is a {step} run; choose a {' or '.join(steps)} run")
    run = finished_run(run_id, step, option=option)
    return run, step, json.loads(run.artifact(CONFIG_FILE).read_text(encoding="utf-8"))


def newest(step: str) -> str:
    """Id of the newest finished run of a step, or of the one that it found.

    Trials of sweeps, and controls of `main` and `worth`, do not count.

    Raises InputError where there is none.
    """
    found = search(f"tags.`{STEP}` = '{step}' and attributes.status = 'FINISHED'")
    found = [run for run in found if run.data.tags.keys().isdisjoint(NOT_ASKED_FOR)]
    if not found:
        raise InputError(f"run_id=: there is no finished {step} run in {tracking_address()}; make one first")
    # By its end: a run may make another of its step while it goes on.
    last = max(found, key=lambda run: run.info.end_time or 0)
    return str(last.data.tags.get(REUSED, last.info.run_id))
