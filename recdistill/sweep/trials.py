"""Trials one after another, until the total is reached: the work of each worker."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState

from recdistill.errors import InputError, Pruned, one_line
from recdistill.sweep.space import Space, Value
from recdistill.sweep.totals import (
    FAILED,
    SURPLUS,
    StaleTrials,
    finished,
    mark_started,
    may_ask,
    may_begin,
)

#: After so many errors one after another the next trial would fail too.
MOST_ERRORS = 3
POLL_SECONDS = 0.5

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Start:
    """The beginning of a trial.

    Attributes:
        number: of the trial.
        values: of the searched options.
        report: takes each epoch's metrics; raises `Pruned` where the trial is given up.
        study: the study's attributes.
    """

    number: int
    values: Mapping[str, Value]
    report: Report
    study: Mapping[str, Any]


#: Trains a trial and yields its metrics. It is left once the study has them, or with the error that ended the trial:
#: `Pruned` where it was given up. It raises `NotBegunError` where the training could not begin.
Training = Callable[[Start], AbstractContextManager[Mapping[str, float]]]


class SurplusTrialError(Exception):
    """The trial has no place in the total."""


class TakenAwayError(Exception):
    """The process gave no heartbeat for so long that its trial was given to another."""


class NotBegunError(Exception):
    """The training could not begin, for a reason that is not the trial's: it does not count, and is queued again."""


def run_trials(
    study: Study,
    storage: RDBStorage,
    space: Space,
    total: int,
    training: Training,
    *,
    grace_seconds: float,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> None:
    """Run trials until ``total`` of them count, or ``stop()``; ``say`` takes a line of each.

    Raises InputError where so many fail one after another that the rest would too.
    """
    stale, errors = StaleTrials(storage, grace_seconds), 0
    while not stop():
        stale.end(study)
        if finished(study) >= total:
            return
        if not may_ask(study, total):
            # The last places are held by other workers, which may yet be killed.
            time.sleep(POLL_SECONDS)
            continue
        began = time.monotonic()
        attempt = run_trial(study, Attempt(storage, space, total, training))
        say(f"{attempt.summary()}, {time.monotonic() - began:.1f} s")
        if not isinstance(attempt.error, (SurplusTrialError, TakenAwayError)):
            errors = errors + 1 if attempt.reason else 0
        if errors >= MOST_ERRORS:
            raise InputError(f"study={study.study_name}: {errors} trials failed one after another: {attempt.reason}")


class Attempt:
    """The objective of one trial.

    Attributes:
        run: the entered `Training`, to be left when the study has the result.
        number: of the trial, -1 before it has one.
        error: what ended it.
        reason: one line where that was an error of its own.
    """

    def __init__(self, storage: RDBStorage, space: Space, total: int, training: Training) -> None:
        self.storage, self.space, self.total, self.training = storage, space, total, training
        self.run = ExitStack()
        self.number, self.reason = -1, ""
        self.error: BaseException | None = None
        self.found: list[float] = []

    def queue_interrupted(self, study: Study) -> None:
        """Queue the trial once more, as a stale one; Optuna calls an interrupted one failed, and leaves it at that."""
        again = self.storage.get_heartbeat_stale_trial_callback()
        if again is not None and self.number >= 0:
            again(study, study.get_trials()[self.number])

    def queue_not_begun(self, study: Study) -> None:
        """Queue the trial's values again, however often that happens: nothing was trained with them yet."""
        study.enqueue_trial(study.get_trials()[self.number].params)

    def summary(self) -> str:
        """The trial's result in a line."""
        if self.found and self.error is None:
            values = zip(self.space.objectives, self.found, strict=True)
            said = ", ".join(f"{objective.metric} {value:.4f}" for objective, value in values)
        elif isinstance(self.error, Pruned):
            said = f"given up, {self.error}"
        else:
            said = f"failed, {self.reason}" if self.reason else "given back"
        return f"trial {self.number}: {said}"

    def __call__(self, trial: optuna.Trial) -> list[float]:
        self.number = trial.number
        try:
            return self.values(trial)
        except Pruned as error:
            self.error = error
            raise optuna.TrialPruned(str(error)) from error
        except (SurplusTrialError, UpdateFinishedTrialError) as error:
            self.error = error
            raise
        except Exception as error:
            self.error = error
            self.reason = one_line(error, 300) or type(error).__name__
            if not isinstance(error, NotBegunError):
                trial.set_user_attr(FAILED, trial.number)
            trial.set_user_attr("reason", self.reason)
            raise

    def values(self, trial: optuna.Trial) -> list[float]:
        """Train, and return the objectives' values."""
        mark_started(self.storage, trial)
        if not may_begin(trial.study, trial.number, self.total):
            trial.set_user_attr(SURPLUS, trial.number)
            raise SurplusTrialError
        values = self.space.suggest(trial)
        start = Start(trial.number, values, self.reporter(trial), trial.study.user_attrs)
        metrics = self.run.enter_context(self.training(start))
        self.found = self.objectives(metrics)
        return self.found

    def objectives(self, metrics: Mapping[str, float]) -> list[float]:
        """The objectives' values. Raises InputError where the run has not logged one."""
        values = []
        for objective in self.space.objectives:
            value = metrics.get(objective.metric, math.nan)
            if not math.isfinite(value):
                raise InputError(f"{objective.metric}: the run has no such number")
            values.append(float(value))
        return values

    def reporter(self, trial: optuna.Trial) -> Report:
        """Hands an epoch's metric to the study, and gives the trial up where the pruner says so."""
        metric = self.space.objectives[0].metric

        def report(epoch: int, metrics: dict[str, float]) -> None:
            if len(self.space.objectives) > 1 or metric not in metrics:
                return
            trial.report(metrics[metric], epoch)
            if trial.should_prune():
                raise Pruned(f"{metric} {metrics[metric]:.4f} after epoch {epoch + 1}")

        return report


def run_trial(study: Study, attempt: Attempt) -> Attempt:
    """One trial. Its run ends only when the study has its result: a kill leaves no finished run of a failed trial."""
    try:
        with attempt.run:
            try:
                study.optimize(attempt, n_trials=1, catch=(Exception,))
            except KeyboardInterrupt:
                attempt.queue_interrupted(study)
                raise
            except Exception as error:
                if attempt.number < 0 or study.get_trials(deepcopy=False)[attempt.number].state == TrialState.RUNNING:
                    raise
                attempt.error, attempt.reason = TakenAwayError(f"trial {attempt.number}: was given to another"), ""
                raise attempt.error from error
            if isinstance(attempt.error, NotBegunError):
                attempt.queue_not_begun(study)
            if attempt.error is not None:
                raise attempt.error
    except Exception as error:
        if error is not attempt.error:
            raise
    return attempt
