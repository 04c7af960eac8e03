"""Worker processes: shared totals, and kills at random moments."""

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from small_sweep import EPOCHS, DiesOnce, Slow, Waits, missing, place_in, square

from recdistill.errors import InputError
from recdistill.sweep.space import Space
from recdistill.sweep.study import open_study
from recdistill.sweep.totals import finished
from recdistill.sweep.workers import Work, map_tasks, run_workers, threads_each


def work_in(folder: Path, space: Space, total: int, training: Any) -> Work:
    open_study(place_in(folder), space, 1, EPOCHS, create=True)
    return Work(place_in(folder), space, 1, EPOCHS, total, training)


@pytest.mark.slow
def test_workers_share_the_total(tmp_path: Path, space: Space) -> None:
    (tmp_path / "working").mkdir()
    run_workers(work_in(tmp_path, space, 12, Slow(tmp_path / "working", 0.2)), jobs=2)
    study = open_study(place_in(tmp_path), space, 1, EPOCHS).study
    assert finished(study) == 12
    done = [path.name.split("-") for path in (tmp_path / "working" / "trials").iterdir()]
    assert len({number for number, _ in done}) == 12
    assert {process for _, process in done} <= {path.name for path in (tmp_path / "working").iterdir()}
    assert str(os.getpid()) not in {process for _, process in done}
    assert len({process for _, process in done}) == 2


def kill_workers(folder: Path, times: int, killed: list[int], stop: threading.Event) -> None:
    """SIGKILL a worker that trains, at random moments."""
    choice = random.Random(7)
    while len(killed) < times and not stop.is_set():
        found = [int(path.name) for path in folder.glob("[0-9]*") if int(path.name) not in killed]
        if found:
            time.sleep(choice.uniform(0, 0.4))
            process = choice.choice(found)
            killed.append(process)
            os.kill(process, signal.SIGKILL)
        time.sleep(choice.uniform(0.1, 0.5))


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path, space: Space) -> None:
    working = tmp_path / "working"
    working.mkdir()
    killed: list[int] = []
    stop = threading.Event()
    killer = threading.Thread(target=kill_workers, args=(working, 5, killed, stop))
    killer.start()
    try:
        run_workers(work_in(tmp_path, space, 24, Slow(working, 0.4)), jobs=2)
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 5
    trials = open_study(place_in(tmp_path), space, 1, EPOCHS).study.get_trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 24
    assert all(trial.state.is_finished() for trial in trials)
    histories = [trial.system_attrs.get("retry_history", []) for trial in trials]
    assert max(map(len, histories)) == 1
    # A trial that was run again has the values of the killed one.
    for trial, history in zip(trials, histories, strict=True):
        for number in history:
            assert trials[number].state == TrialState.FAIL
            assert trials[number].params.items() <= trial.params.items()


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_said(tmp_path: Path, space: Space) -> None:
    with pytest.raises(InputError, match="3 trials failed one after another: no teacher there"):
        run_workers(work_in(tmp_path, space, 9, missing), jobs=2)


@pytest.mark.slow
def test_tasks_are_done_in_order(tmp_path: Path) -> None:
    assert map_tasks(square, [3, 1, 2], 1) == [9, 1, 4]
    assert map_tasks(DiesOnce(tmp_path), [0, 1, 2, 3], 2) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_failure_ends_the_other_tasks_and_is_told_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match="task 1 cannot be"):
        map_tasks(Waits(tmp_path), [0, 1, 2, 3], 2)
    assert time.monotonic() - begun < 300
    assert (tmp_path / "ended").exists()


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert [threads_each(jobs) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
