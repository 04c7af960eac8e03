"""Exactly so many trials, by any number of workers, however often workers are killed.

A trial *counts* when it is complete, pruned, or failed by an error of its own. A killed one does not count: it is run
again once, and then another one takes its place. No lock is needed: trial numbers are handed out by the storage one
after another, so a trial may run when fewer than the total of those with smaller numbers count or still may. A trial
that may not is *surplus*: it is given back before it begins, which happens only where two workers ask for the last
place at once.
"""

import time
from collections.abc import Iterable

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

#: Attributes of a trial that hold its number: it has begun, it ended with an error of its own, it had no place.
STARTED, FAILED, SURPLUS = "started", "failed", "surplus"
OPEN = (TrialState.RUNNING, TrialState.WAITING)


def counts(trial: FrozenTrial) -> bool:
    """Whether the trial is one of the total."""
    # A trial that is run again has the attributes of the killed one, and a number of its own.
    failed = trial.state == TrialState.FAIL and trial.user_attrs.get(FAILED) == trial.number
    return failed or trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def finished(study: Study) -> int:
    """How many trials count."""
    return sum(counts(trial) for trial in study.get_trials(deepcopy=False))


def places_taken(trials: Iterable[FrozenTrial], before: int | None = None) -> int:
    """Trials that count or may still, of those numbered below ``before``."""
    return sum((before is None or t.number < before) and (counts(t) or t.state in OPEN) for t in trials)


def may_begin(study: Study, number: int, total: int) -> bool:
    """Whether this running trial has a place in the total."""
    return places_taken(study.get_trials(deepcopy=False), before=number) < total


def may_ask(study: Study, total: int) -> bool:
    """Whether a trial is queued, or there is a place for a new one."""
    trials = study.get_trials(deepcopy=False)
    return any(trial.state == TrialState.WAITING for trial in trials) or places_taken(trials) < total


class StaleTrials:
    """Ends stale trials: running ones whose process was killed.

    Optuna looks at heartbeats only, and a trial has none until its process has drawn its first values. Such a trial
    is stale when it has not changed for the grace period of this process's own clock.
    """

    def __init__(self, storage: RDBStorage, grace_seconds: float) -> None:
        self.storage, self.grace_seconds = storage, grace_seconds
        self.first_seen: dict[int, float] = {}

    def end(self, study: Study) -> None:
        """Mark stale trials failed, and queue each once more."""
        fail_stale_trials(study)
        now = time.monotonic()
        not_started = {
            trial.number: trial
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if trial.user_attrs.get(STARTED) != trial.number
        }
        self.first_seen = {number: self.first_seen.get(number, now) for number in not_started}
        for number, trial in not_started.items():
            if now - self.first_seen[number] > self.grace_seconds:
                self.fail(study, trial)

    def fail(self, study: Study, trial: FrozenTrial) -> None:
        """Mark a trial failed and queue it again, unless it went on after all or another process was first."""
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return
        callback = self.storage.get_heartbeat_stale_trial_callback()
        if callback is not None:
            callback(study, study.get_trials(deepcopy=True)[trial.number])


def mark_started(storage: RDBStorage, trial: optuna.Trial) -> None:
    """Record a first heartbeat: from here on Optuna finds the trial when its process is killed."""
    # Optuna's thread records one soon; recording it here leaves no moment without one.
    storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr(STARTED, trial.number)
