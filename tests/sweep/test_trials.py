"""Trials one after another: what becomes of errors, of trials given up, and of those taken away."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from optuna.trial import TrialState
from small_sweep import run, train

from recdistill.errors import InputError, Pruned
from recdistill.sweep.space import Space
from recdistill.sweep.study import OpenStudy
from recdistill.sweep.totals import finished
from recdistill.sweep.trials import TakenAwayError


class Runs:
    """Notes how each trial's run was left."""

    def __init__(self, fail: Mapping[int, BaseException] | None = None) -> None:
        self.left: dict[int, str] = {}
        self.fail = fail or {}

    @contextmanager
    def __call__(self, start: Any) -> Iterator[Mapping[str, float]]:
        try:
            if start.number in self.fail:
                raise self.fail[start.number]
            with train(start) as metrics:
                yield metrics
            self.left[start.number] = "finished"
        except BaseException as error:
            self.left[start.number] = type(error).__name__
            raise


def test_runs_are_left_when_the_study_has_the_result(opened: OpenStudy, space: Space) -> None:
    seen = {}

    class Watching(Runs):
        @contextmanager
        def __call__(self, start: Any) -> Iterator[Mapping[str, float]]:
            with super().__call__(start) as metrics:
                yield metrics
            seen[start.number] = opened.study.get_trials()[start.number].state

    run(opened, space, 3, Watching())
    assert seen == dict.fromkeys(range(3), TrialState.COMPLETE)


def test_an_error_fails_its_trial_and_the_sweep_goes_on(opened: OpenStudy, space: Space) -> None:
    runs = Runs({1: RuntimeError("out of\nluck"), 3: InputError("loss is nan")})
    run(opened, space, 5, runs)
    assert runs.left == {
        0: "finished",
        1: "RuntimeError",
        2: "finished",
        3: "InputError",
        4: "finished",
    }
    trials = opened.study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert trials[1].user_attrs["reason"] == "out of luck"


def test_errors_one_after_another_end_the_sweep(opened: OpenStudy, space: Space) -> None:
    runs = Runs({number: InputError("no teacher there") for number in range(1, 9)})
    with pytest.raises(InputError, match="study=study: 3 trials failed one after another: no teacher there"):
        run(opened, space, 9, runs)
    assert len(opened.study.get_trials()) == 4


def test_a_run_given_up_is_left_so(opened: OpenStudy, space: Space) -> None:
    runs = Runs({1: Pruned("too bad")})
    run(opened, space, 3, runs)
    assert runs.left[1] == "Pruned"
    assert opened.study.get_trials()[1].state == TrialState.PRUNED
    assert finished(opened.study) == 3


def test_an_interrupt_ends_the_sweep_and_the_trial_does_not_count(opened: OpenStudy, space: Space) -> None:
    runs = Runs({1: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run(opened, space, 3, runs)
    assert runs.left[1] == "KeyboardInterrupt"
    assert finished(opened.study) == 1
    run(opened, space, 3, Runs())
    assert finished(opened.study) == 3
    # Its values are tried all the same, as a killed trial's are.
    interrupted, again = opened.study.get_trials()[1:3]
    assert again.params == interrupted.params
    assert again.state == TrialState.COMPLETE


@pytest.mark.parametrize("metrics", [{}, {"val/ndcg_at_20": float("nan")}, {"val/ndcg_at_20": float("inf")}])
def test_a_run_without_the_metric_failed(opened: OpenStudy, space: Space, metrics: dict[str, float]) -> None:
    left = []

    @contextmanager
    def silent(start: Any) -> Iterator[Mapping[str, float]]:
        try:
            yield metrics
        except InputError as error:
            left.append(str(error))
            raise

    run(opened, space, 1, silent)
    assert left == ["val/ndcg_at_20: the run has no such number"]
    assert opened.study.get_trials()[0].state == TrialState.FAIL


def test_a_trial_taken_away_gives_no_result(opened: OpenStudy, space: Space) -> None:
    """A process that was stopped so long that it was thought dead: its trial is another's."""
    late = []

    @contextmanager
    def paused(start: Any) -> Iterator[Mapping[str, float]]:
        with train(start) as metrics:
            if start.number == 1:
                opened.study.tell(1, state=TrialState.FAIL)
            try:
                yield metrics
            except TakenAwayError:
                late.append(start.number)
                raise

    run(opened, space, 3, paused)
    assert late == [1]
    assert [t.state.name for t in opened.study.get_trials()] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert finished(opened.study) == 3


def test_nothing_runs_where_the_total_is_reached(opened: OpenStudy, space: Space) -> None:
    run(opened, space, 2)
    run(opened, space, 2)
    run(opened, space, 1)
    assert len(opened.study.get_trials()) == 2
