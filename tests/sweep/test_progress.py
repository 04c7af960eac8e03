"""What is shown of a sweep while its trials run: a line of each, once, and how far they are."""

import re
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from small_sweep import EPOCHS, make_space, place_in, refused, train

from recdistill.errors import InputError
from recdistill.sweep.progress import Watch, best_of
from recdistill.sweep.space import Space
from recdistill.sweep.study import open_study
from recdistill.sweep.workers import Work, bars_on_terminals, run_workers
from recdistill.training.distributed import Processes

TWO = "objectives: [val/ndcg_at_20, latency_ms]\nparameters:\n  lam: {low: 0.0, high: 2.0}\n"


class Recorded:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.states: list[tuple[int, str, float]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def at(self, done: int, best: str, seconds: float) -> None:
        self.states.append((done, best, seconds))


def work(folder: Path, space: Space, total: int, training: Any = train) -> Work:
    open_study(place_in(folder), space, 1, EPOCHS, create=True)
    return Work(place_in(folder), space, 1, EPOCHS, total, training)


def numbers(lines: list[str]) -> list[int]:
    """Of the trials that lines are about."""
    found = [re.fullmatch(r"trial (\d+): .*, \d+\.\d s", line) for line in lines]
    assert all(found), lines
    return sorted(int(one[1]) for one in found if one is not None)


def one_line_a_trial(lines: list[str], folder: Path, space: Space, total: int) -> None:
    """A busy machine may cut a trial short, which comes again under a new number: so many are complete all the same."""
    found = numbers(lines)
    assert len(set(found)) == len(found)
    complete = open_study(place_in(folder), space, 1, EPOCHS).study.get_trials(states=(TrialState.COMPLETE,))
    assert len(complete) == total
    assert {trial.number for trial in complete} <= set(found)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_line_a_trial_is_said_here_and_nothing_else_is_printed(tmp_path, space, capfd, jobs) -> None:
    shown = Recorded()
    run_workers(work(tmp_path, space, 6), jobs, shown)
    one_line_a_trial(shown.lines, tmp_path, space, 6)
    # Of the worker processes, too.
    assert "trial" not in "".join(capfd.readouterr())
    study = open_study(place_in(tmp_path), space, 1, EPOCHS).study
    done, best, left = shown.states[-1]
    assert (done, best, left) == (6, f"best val/ndcg_at_20 {study.best_value:.4f}", 0.0)
    assert shown.states[0] == (0, "", 0.0)
    assert [state[0] for state in shown.states] == sorted(state[0] for state in shown.states)


@pytest.mark.slow
def test_lines_are_printed_where_nobody_shows_them(tmp_path, space, capfd) -> None:
    run_workers(work(tmp_path, space, 3), 2)
    one_line_a_trial(capfd.readouterr().out.splitlines(), tmp_path, space, 3)


@pytest.mark.slow
def test_the_last_lines_of_a_worker_that_fails_are_said(tmp_path, space) -> None:
    shown = Recorded()
    with pytest.raises(InputError, match="no teacher there"):
        run_workers(work(tmp_path, space, 9, refused), 2, shown)
    said = "\n".join(shown.lines)
    assert said.count("failed, no teacher there") >= 3
    assert len(set(numbers(shown.lines))) == len(shown.lines)


def test_time_left_is_that_of_the_trials_that_are_missing(tmp_path, space, monkeypatch) -> None:
    run_workers(work(tmp_path, space, 2), 1, Recorded())
    study = open_study(place_in(tmp_path), space, 1, EPOCHS).study
    now = [100.0]
    monkeypatch.setattr("recdistill.sweep.progress.time.monotonic", lambda: now[0])
    shown = Recorded()
    watch = Watch(shown, study, space, 6)
    # Trials of an earlier command say nothing about the pace of this one.
    assert shown.states == [(2, f"best val/ndcg_at_20 {study.best_value:.4f}", 0.0)]
    monkeypatch.setattr("recdistill.sweep.progress.finished", lambda study: 4)
    now[0] = 120.0
    watch.look()
    assert shown.states[-1][0] == 4
    assert shown.states[-1][2] == pytest.approx(20.0)  # two in twenty seconds, two to go
    now[0] = 121.0
    watch.look_again()
    assert len(shown.states) == 2
    now[0] = 130.0
    watch.look_again()
    assert len(shown.states) == 3


def test_several_objectives_have_no_best(tmp_path) -> None:
    space = make_space(tmp_path, TWO)
    run_workers(work(tmp_path, space, 2), 1, Recorded())
    assert best_of(open_study(place_in(tmp_path), space, 1, EPOCHS).study, space) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_trainings_show_bars_on_terminals_alone(monkeypatch, terminal) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with bars_on_terminals():
        assert Processes().bar_options == ({} if terminal else {"disable": True})
    assert Processes().bar_options == {}
