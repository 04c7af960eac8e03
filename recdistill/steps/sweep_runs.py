"""A sweep's trainings, as any process does them: each in a run of its own, nested in the sweep's."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recdistill.config import StudentConfig, DistillConfig
from recdistill.errors import InputError
from recdistill.steps.backbone import backbone
from recdistill.sweep.lead import LEADER
from recdistill.sweep.totals import counts
from recdistill.sweep.trials import Report, Start
from recdistill.runs.step_runs import StepRun
from recdistill.runs.sweep_runs import STUDY, STUDY_ID, TRIAL, child_run, log_child_metrics, settle_trials

#: Attributes of a study: the identity that its runs carry, and what it searches.
IDENTITY, DESCRIPTION = "identity", "description"
FINAL = "recdistill.final"

Train = Callable[..., StepRun]


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
        tags = {STUDY: self.study, STUDY_ID: str(start.study[IDENTITY]), TRIAL: str(start.number)}
        # With several seeds the trial's run holds their means, and a run for each is nested in it.
        step = "distill" if self.seeds == 1 else "trial"
        with child_run(step, str(start.study[LEADER]), f"trial {start.number}", tags, start.values) as run_id:
            metrics = self.trained(start.values, start.report)
            if self.seeds > 1:
                log_child_metrics(run_id, metrics)
            yield metrics

    def trained(self, values: Mapping[str, Any], report: Report) -> dict[str, float]:
        """Metrics, means over the seeds. The first seed's epochs are what a pruner sees."""
        results = []
        for offset in range(self.seeds):
            config = replace(self.base, **values, seed=self.base.seed + offset)
            results.append(self.train(config, report=report if offset == 0 else unwatched).metrics())
        shared = set.intersection(*(set(result) for result in results))
        return {name: statistics.fmean(result[name] for result in results) for name in sorted(shared)}


@dataclass(frozen=True)
class Final:
    """A final training: which configuration, which options. A `StudentConfig` is the undistilled student."""

    name: str
    config: StudentConfig


@dataclass(frozen=True)
class FinalTraining:
    """Does the final trainings, nested in ``parent_run_id``."""

    study: str
    identity: str
    parent_run_id: str
    train: Train

    def __call__(self, final: Final) -> dict[str, float]:
        distilled = isinstance(final.config, DistillConfig)
        tags = {STUDY: self.study, STUDY_ID: self.identity, FINAL: final.name}
        name = f"{final.name}, seed {final.config.seed}"
        with child_run("distill" if distilled else "backbone", self.parent_run_id, name, tags, {}):
            step: Train = self.train if distilled else backbone
            return step(final.config).metrics()


def unwatched(epoch: int, metrics: Mapping[str, float]) -> None:
    """The report of a training that no pruner looks at."""


def settle(study: Study) -> None:
    """Make the runs of the trials agree with the study."""
    states = {trial.number: state_of(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
    settle_trials(str(study.user_attrs.get(IDENTITY)), states)


def state_of(trial: FrozenTrial) -> str:
    """What a finished trial's run is to be."""
    if trial.state == TrialState.FAIL:
        return "failed" if counts(trial) else "killed"
    return trial.state.name.lower()


def found_dead(study: Study, trial: FrozenTrial) -> None:
    """A trial's process was killed: so was its run."""
    print(f"trial {trial.number}: its process was killed", flush=True)
    settle(study)


def check_same(study: Study, description: str) -> None:
    """Raise InputError where the study searches something else."""
    if study.user_attrs.get(DESCRIPTION, description) != description:
        raise InputError(
            f"study={study.study_name}: was made for another space, data or options; give another name, or none"
        )
