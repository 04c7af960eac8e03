"""The trainings of a sweep, in any process: each in a run of its own, nested in the sweep's."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recdistill.config import DistillConfig, StudentConfig, changed
from recdistill.config.run_names import changes_name
from recdistill.errors import one_line
from recdistill.plugins import load_plugins
from recdistill.runs.outbox import LostStoreError
from recdistill.runs.step_runs import StepRun, nest_runs_in
from recdistill.runs.sweep_runs import (
    STUDY,
    STUDY_ID,
    TRIAL,
    TrackingPlace,
    child_run,
    log_child_metrics,
    settle_trials,
    use_tracking,
)
from recdistill.runs.tracking_store import fault
from recdistill.sweep.lead import LEADER
from recdistill.sweep.totals import counts
from recdistill.sweep.trials import NotBegunError, Report, Start

#: Attribute of a study: the identity that its runs carry as a tag.
IDENTITY = "identity"
FINAL = "recdistill.final"

Train = Callable[..., StepRun]


@dataclass(frozen=True)
class Preparation:
    """Sets a worker process up.

    Attributes:
        tracking: where it logs.
        plugins: the users' modules whose parts options may name.
        parent_run_id: the run that its own are nested in; empty: none.
    """

    tracking: TrackingPlace
    plugins: str
    parent_run_id: str = ""

    def __call__(self) -> None:
        use_tracking(self.tracking)
        nest_runs_in(self.parent_run_id)
        load_plugins(self.plugins)


@dataclass(frozen=True)
class TrialTraining:
    """Trains a trial: the student of ``base`` and the trial's values, once a seed.

    Attributes:
        study: name of the study.
        base: options that the trials share.
        seeds: runs a trial; the trial's metrics are their means.
        train: the step, ``(config, *, report)``.
    """

    study: str
    base: DistillConfig
    seeds: int
    train: Train

    @contextmanager
    def __call__(self, start: Start) -> Iterator[Mapping[str, float]]:
        with ExitStack() as stack:
            try:
                run_id = stack.enter_context(self.opened_run(start))
            except Exception as error:
                raise NotBegunError(f"its run cannot be opened ({type(error).__name__}: {one_line(error)})") from error
            try:
                metrics = self.trained(start.values, start.report)
            except Exception as error:
                said = fault(error)
                if said is None and not isinstance(error, LostStoreError):
                    raise
                # A full disk or a lost server is no fault of the trial's values: they are tried again.
                raise NotBegunError(one_line(said or error, 300)) from error
            if self.seeds > 1:
                log_child_metrics(run_id, metrics)
            yield metrics

    @contextmanager
    def opened_run(self, start: Start) -> Iterator[str]:
        """The trial's run. With several seeds it holds their means, and a run for each is nested in it."""
        step = "distill" if self.seeds == 1 else "trial"
        tags = {STUDY: self.study, STUDY_ID: str(start.study[IDENTITY]), TRIAL: str(start.number)}
        name = changes_name(f"trial {start.number}", start.values)
        with child_run(step, str(start.study[LEADER]), name, tags, start.values) as run_id:
            yield run_id

    def trained(self, values: Mapping[str, Any], report: Report) -> dict[str, float]:
        """Metrics, means over the seeds. A pruner sees the epochs of the first seed."""
        results = []
        for offset in range(self.seeds):
            config = changed(self.base, **values, seed=self.base.seed + offset)
            results.append(self.train(config, report=report if offset == 0 else unwatched).metrics())
        shared = set.intersection(*(set(result) for result in results))
        return {name: statistics.fmean(result[name] for result in results) for name in sorted(shared)}


@dataclass(frozen=True)
class Final:
    """A final training: the name of its configuration, and its options; a `StudentConfig` has no teacher."""

    name: str
    config: StudentConfig


@dataclass(frozen=True)
class Trained:
    """The run of a final training, and its metrics."""

    run_id: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class FinalTraining:
    """Does the final trainings, nested in ``parent_run_id``.

    Attributes:
        study, identity: of the study.
        train: the step of a student with a teacher.
        baseline: the step of a student without.
    """

    study: str
    identity: str
    parent_run_id: str
    train: Train
    baseline: Train

    def __call__(self, final: Final, member: Any = None) -> Trained:
        """Do one; ``member`` is its place among those that train together."""
        distilled = isinstance(final.config, DistillConfig)
        step, train = ("distill", self.train) if distilled else ("backbone", self.baseline)
        tags = {STUDY: self.study, STUDY_ID: self.identity, FINAL: final.name}
        with child_run(step, self.parent_run_id, f"{final.name}, seed {final.config.seed}", tags, {}):
            run = train(final.config) if member is None else train(final.config, member=member)
            return Trained(run.run_id, run.metrics())


def unwatched(epoch: int, metrics: Mapping[str, float]) -> None:
    """The report of a training that no pruner looks at."""


def settle(study: Study) -> None:
    """Make the runs of the trials agree with the study."""
    states = {trial.number: state_of(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
    settle_trials(str(study.user_attrs.get(IDENTITY)), states)


def state_of(trial: FrozenTrial) -> str:
    """The state that the run of a finished trial should have."""
    if trial.state == TrialState.FAIL:
        return "failed" if counts(trial) else "killed"
    return trial.state.name.lower()


def stale_trial_ended(study: Study, trial: FrozenTrial) -> None:
    """End the run of a stale trial too."""
    print(f"trial {trial.number}: its process was killed", flush=True)
    settle(study)
