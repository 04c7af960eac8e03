"""Exactly so many trials, in any order of events; stale trials are queued once."""

import time
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from small_sweep import run, train

from recdistill.sweep.space import Space
from recdistill.sweep.study import OpenStudy
from recdistill.sweep.totals import FAILED, STARTED, SURPLUS, StaleTrials, counts, finished, may_ask, may_begin

WORKERS = 3


class Simulated:
    """Workers that take one step at a time, in an order that hypothesis chooses."""

    def __init__(self, total: int) -> None:
        self.study, self.total = optuna.create_study(), total
        self.retry = RetryHeartbeatStaleTrialCallback(max_retry=1)
        self.state: list[tuple[str, Any]] = [("idle", None)] * WORKERS
        self.runs = 0

    def step(self, worker: int, ending: str) -> None:
        """The worker's next step: to look, to ask, to begin, and to end in ``ending``."""
        what, trial = self.state[worker]
        if what == "idle":
            if finished(self.study) < self.total and may_ask(self.study, self.total):
                self.state[worker] = ("may ask", None)
        elif what == "may ask":
            self.state[worker] = ("asked", self.study.ask())
        elif what == "asked":
            if may_begin(self.study, trial.number, self.total):
                self.state[worker] = ("runs", trial)
                return
            trial.set_user_attr(SURPLUS, trial.number)
            self.study.tell(trial, state=TrialState.FAIL)
            self.state[worker] = ("idle", None)
        else:
            self.end(trial, ending)
            self.state[worker] = ("idle", None)

    def end(self, trial: optuna.Trial, ending: str) -> None:
        self.runs += 1
        if ending == "killed":
            self.study.tell(trial, state=TrialState.FAIL)
            self.retry(self.study, self.study.get_trials()[trial.number])
        elif ending == "failed":
            trial.set_user_attr(FAILED, trial.number)
            self.study.tell(trial, state=TrialState.FAIL)
        elif ending == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, 1.0)


@settings(deadline=None, max_examples=60)
@given(
    total=st.integers(1, 6),
    schedule=st.lists(
        st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(["complete", "pruned", "failed", "killed"])),
        max_size=60,
    ),
)
def test_the_total_is_reached_and_never_passed(total: int, schedule: list[tuple[int, str]]) -> None:
    simulated = Simulated(total)
    for worker, ending in schedule:
        simulated.step(worker, ending)
        assert finished(simulated.study) <= total
    for _ in range(20 * (total + WORKERS)):
        for worker in range(WORKERS):
            simulated.step(worker, "complete")
    trials = simulated.study.get_trials()
    assert finished(simulated.study) == total
    assert all(trial.state.is_finished() for trial in trials)
    histories = [trial.system_attrs.get("retry_history", []) for trial in trials]
    assert max(map(len, histories), default=0) <= 1


def test_a_killed_trial_that_is_queued_again_does_not_count_for_its_predecessor(opened: OpenStudy) -> None:
    study = opened.study
    trial = optuna.create_trial(state=TrialState.FAIL, user_attrs={FAILED: 3, STARTED: 3})
    study.add_trial(trial)
    assert not counts(study.get_trials()[0])


def die_in(opened: OpenStudy, *, started: bool) -> int:
    """Leave a RUNNING trial behind, killed before or after its first heartbeat."""
    trial = opened.study.ask()
    if started:
        opened.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(STARTED, trial.number)
    return trial.number


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("started", [pytest.param(True, marks=pytest.mark.slow), False])
def test_stale_trials_are_run_again_once(opened: OpenStudy, space: Space, started: bool) -> None:
    number = die_in(opened, started=started)
    stale = StaleTrials(opened.storage, grace_seconds=0.5)
    stale.end(opened.study)
    assert opened.study.get_trials()[number].state == TrialState.RUNNING
    time.sleep(3.1 if started else 0.6)
    stale.end(opened.study)
    first, second = opened.study.get_trials()
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.WAITING)
    assert second.system_attrs["retry_history"] == [number]
    # The second attempt dies too: there is no third.
    assert die_in(opened, started=False) == second.number
    stale.end(opened.study)
    time.sleep(0.6)
    stale.end(opened.study)
    assert [trial.state for trial in opened.study.get_trials()] == [TrialState.FAIL, TrialState.FAIL]
    run(opened, space, 3)
    assert finished(opened.study) == 3
    assert len(opened.study.get_trials()) == 5


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_living_trial_is_not_ended(opened: OpenStudy, space: Space) -> None:
    stale, looks = StaleTrials(opened.storage, grace_seconds=0.1), []

    def slow(start: Any) -> Any:
        time.sleep(0.3)
        stale.end(opened.study)
        time.sleep(0.3)
        stale.end(opened.study)
        looks.append(start.number)
        return train(start)

    run(opened, space, 2, slow)
    assert looks == [0, 1]
    assert [trial.state for trial in opened.study.get_trials()] == [TrialState.COMPLETE] * 2
