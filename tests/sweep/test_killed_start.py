"""A sweep that is killed between the making of its study and its first trial goes on at the next start."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import optuna
import pytest
from optuna.trial import TrialState
from sweep_runs_seen import runs, trials_of
from sweep_store import own_store
from sweep_stub import STEPS, as_given, options, sweep

from recdistill.config import DistillConfig
from recdistill.errors import InputError
from recdistill.runs.outbox import LostStoreError
from recdistill.sweep.lead import LEADER, Lead
from recdistill.sweep.named_study import DESCRIPTION
from recdistill.sweep.study_run import Steps
from recdistill.sweep.totals import finished
from recdistill.sweep.trainings import IDENTITY

TRIALS = 3


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the sweep catches it."""


def killed(*arguments: Any, **named: Any) -> NoReturn:
    raise Killed


def stop_silently(lead: Lead, *exception: object) -> None:
    """A killed command does not say that it leaves."""
    lead.stopped.set()
    lead.thread.join()


#: By name of the last thing that the first start did: the function that it is killed in, and the attributes of the
#: study by then.
STAGES: dict[str, tuple[str, set[str]]] = {
    "study made": ("recdistill.sweep.named_study.prepare_study", set()),
    "study described": ("recdistill.sweep.named_study.Study.enqueue_trial", {DESCRIPTION}),
    "default queued": ("recdistill.sweep.named_study.new_identity", {DESCRIPTION}),
    "study ready": ("recdistill.sweep.study_run.Lead.__enter__", {DESCRIPTION, IDENTITY}),
    "lead taken": ("recdistill.sweep.study_run.log_settings", {DESCRIPTION, IDENTITY, LEADER}),
    "settings logged": ("", {DESCRIPTION, IDENTITY, LEADER}),
    "teacher made": ("recdistill.sweep.study_run.run_workers", {DESCRIPTION, IDENTITY, LEADER}),
    "first trial asked for": ("recdistill.sweep.trials.mark_started", {DESCRIPTION, IDENTITY, LEADER}),
}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_store(monkeypatch) as path:
        yield path


def the_study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/optuna.db")


def killed_start(folder: Path, stage: str) -> str:
    """Start a sweep and kill it at a stage. Returns its run, left as a killed process leaves it."""
    place, _ = STAGES[stage]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lead, "__exit__", stop_silently)
        if place:
            patch.setattr(place, killed)
        making: Callable[[DistillConfig], DistillConfig] = as_given if place else killed
        with pytest.raises(Killed):
            start(folder, Steps(STEPS.distill, making, as_given, STEPS.baseline))
    (left,) = runs()
    client = mlflow.MlflowClient()
    client.update_run(left.info.run_id, status="RUNNING")
    client.delete_tag(left.info.run_id, "recdistill.failure")
    return str(left.info.run_id)


def start(folder: Path, steps: Steps = STEPS) -> str:
    return sweep(options(folder, trials=TRIALS, final_seeds=0), steps).run_id


def check_whole(folder: Path, parent: str) -> None:
    """All trials are there, the default configuration too, none of them lost or failed."""
    study = the_study(folder)
    complete = [trial for trial in study.get_trials() if trial.state == TrialState.COMPLETE]
    assert len(complete) == finished(study) == TRIALS
    default = {"lam": DistillConfig().lam, "ed_weight": DistillConfig().ed_weight}
    assert [trial.params for trial in complete].count(default) == 1
    trials = trials_of(parent)
    assert {number for number, run in trials.items() if run.info.status == "FINISHED"} == {t.number for t in complete}
    assert not [run for run in trials.values() if run.info.status in ("RUNNING", "FAILED")]
    assert mlflow.get_run(parent).info.status == "FINISHED"
    assert study.user_attrs[LEADER] == parent


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_next_start_goes_on_from_every_stage(folder: Path, stage: str) -> None:
    left = killed_start(folder, stage)
    assert {DESCRIPTION, IDENTITY, LEADER} & set(the_study(folder).user_attrs) == STAGES[stage][1]
    parent = start(folder)
    check_whole(folder, parent)
    if LEADER in STAGES[stage][1]:
        assert mlflow.get_run(left).info.status == "KILLED"
        assert mlflow.get_run(left).data.tags["recdistill.continued_in"] == parent


@pytest.mark.slow
def test_a_study_that_another_space_began_is_refused(folder: Path) -> None:
    killed_start(folder, "study described")
    with pytest.raises(InputError, match="was made for another space, data or options"):
        sweep(options(folder, trials=TRIALS, final_seeds=0, patience=3, study=the_study(folder).study_name))


@pytest.mark.slow
def test_trials_whose_runs_could_not_be_opened_are_made_up_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any) -> NoReturn:
        raise ConnectionError("the tracking server is away")

    with monkeypatch.context() as patch:
        patch.setattr("recdistill.sweep.trainings.child_run", unreachable)
        said = r"3 trials failed one after another: its run cannot be opened \(ConnectionError: the tracking server"
        for _ in range(2):
            with pytest.raises(InputError, match=said):
                start(folder)
    assert finished(the_study(folder)) == 0
    parent = start(folder)
    check_whole(folder, parent)
    states = Counter(trial.state for trial in the_study(folder).get_trials())
    assert states == {TrialState.FAIL: 6, TrialState.COMPLETE: 3}


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), LostStoreError("nobody answers")])
def test_a_full_disk_or_a_lost_server_is_no_fault_of_a_trial(folder: Path, error: Exception) -> None:
    def fails(config: DistillConfig, **options: Any) -> NoReturn:
        raise error

    with pytest.raises(InputError, match="3 trials failed one after another"):
        start(folder, Steps(fails, as_given, as_given, STEPS.baseline))
    assert finished(the_study(folder)) == 0
    check_whole(folder, start(folder))
