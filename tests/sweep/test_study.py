"""The study: its sequence of values, its samplers and pruners, and what is said of an unusable storage."""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.study import Study
from optuna.trial import TrialState
from small_sweep import EPOCHS, TEXT, make_space, place_in, run

from recdistill.errors import InputError
from recdistill.sweep.samplers import build_sampler
from recdistill.sweep.space import Space
from recdistill.sweep.study import StudyPlace, open_study, with_driver


def sequence(folder: Path, name: str, space: Space, totals: list[int], seed: int = 1) -> list[tuple[object, ...]]:
    """Numbers, values and results of a study whose process ends and starts again at each total."""
    for total in totals:
        run(open_study(place_in(folder, name), space, seed, EPOCHS, create=True), space, total)
    study = open_study(place_in(folder, name), space, seed, EPOCHS).study
    return [(t.number, t.state, t.params, t.values) for t in study.get_trials()]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_the_same_seed_gives_the_same_trials_also_after_a_stop(tmp_path: Path, sampler: str) -> None:
    space = make_space(tmp_path, TEXT.replace("name: tpe", f"name: {sampler}"))
    whole = sequence(tmp_path, "whole", space, [8])
    assert len(whole) == 8
    assert sequence(tmp_path, "again", space, [8]) == whole
    assert sequence(tmp_path, "stopped", space, [3, 5, 8]) == whole
    assert sequence(tmp_path, "other", space, [8], seed=2) != whole


def test_a_queued_trial_is_given_to_one_process_only(tmp_path: Path, space: Space) -> None:
    opened = [open_study(place_in(tmp_path), space, 1, EPOCHS, create=True) for _ in range(4)]
    start = threading.Barrier(len(opened))

    def ask(study: Study) -> list[int]:
        numbers = []
        for _ in range(10):
            start.wait()
            numbers.append(study.ask().number)
        return numbers

    for number in range(10):
        opened[0].study.enqueue_trial({"lam": number / 10})
    with ThreadPoolExecutor(len(opened)) as threads:
        given = list(threads.map(ask, [one.study for one in opened]))
    assert sorted(itertools.chain(*given)) == list(range(40))


def test_no_two_trials_draw_the_same(tmp_path: Path, space: Space) -> None:
    drawn = sequence(tmp_path, "a", space, [8])
    assert len({trial[2]["lam"] for trial in drawn}) == 8  # type: ignore[index]


def test_values_do_not_depend_on_who_draws_them(space: Space) -> None:
    first, second = build_sampler(space, 1, 5), build_sampler(space, 1, 5)
    assert first._rng.rng.random() == second._rng.rng.random()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_bad_trial_is_given_up_by_the_median(tmp_path: Path) -> None:
    pruner = "pruner: {name: median, startup_trials: 4, warmup_epochs: 2}\n"
    space = make_space(tmp_path, pruner + TEXT)
    trials = sequence(tmp_path, "a", space, [20])
    pruned = [trial for trial in trials if trial[1] == TrialState.PRUNED]
    assert 3 < len(pruned) < 16
    study = open_study(place_in(tmp_path, "a"), space, 1, EPOCHS).study
    steps = [trial.last_step for trial in study.get_trials() if trial.state == TrialState.PRUNED]
    assert min(step for step in steps if step is not None) == 2


@pytest.mark.slow
def test_hyperband_gives_trials_up(tmp_path: Path) -> None:
    space = make_space(tmp_path, "pruner: {name: hyperband, min_epochs: 1}\n" + TEXT)
    states = [trial[1] for trial in sequence(tmp_path, "a", space, [20])]
    assert states.count(TrialState.PRUNED) > 3
    assert states.count(TrialState.COMPLETE) > 3


def test_several_objectives_are_never_pruned(tmp_path: Path) -> None:
    text = TEXT.replace("objective: val/ndcg_at_20", "objectives: [val/ndcg_at_20, latency_ms]")
    trials = sequence(tmp_path, "a", make_space(tmp_path, text), [8])
    assert [trial[1] for trial in trials] == [TrialState.COMPLETE] * 8
    assert all(len(trial[3]) == 2 for trial in trials)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "must be sqlite"),
        ("oracle9://x", "must be sqlite"),
        ("sqlite:////no/such/folder/optuna.db", "cannot be opened"),
        ("mysql://user:secret@localhost/none", "needs a driver; pip install 'pymysql'"),
        (
            "mysql://user:se/cr@secret@localhost/none?password=secret",
            "storage=mysql://localhost/none?password=***: mysql",
        ),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line(
    space: Space, url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    monkeypatch.setattr("recdistill.sweep.study.time.sleep", lambda seconds: None)
    with pytest.raises(InputError) as caught:
        open_study(StudyPlace(url, "a"), space, 1, EPOCHS, create=True)
    message = str(caught.value)
    assert message.startswith("storage=")
    assert said in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.sweep.study.time.sleep", lambda seconds: None)
    (tmp_path / "optuna.db").write_text("this is no database, and longer than a page header of a hundred bytes" * 9)
    with pytest.raises(InputError, match="cannot be opened"):
        open_study(place_in(tmp_path), space, 1, EPOCHS, create=True)


def test_a_study_that_is_not_there_is_said(tmp_path: Path, space: Space) -> None:
    with pytest.raises(InputError, match="study=study: is not in sqlite"):
        open_study(place_in(tmp_path), space, 1, EPOCHS)


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("postgresql://me:s%40cret@host/base", "postgresql+psycopg://me:s%40cret@host/base"),
        ("mysql://me@host/base?charset=utf8mb4", "mysql+pymysql://me@host/base?charset=utf8mb4"),
        ("postgresql+psycopg2://me@host/base", "postgresql+psycopg2://me@host/base"),
        ("sqlite:////some/file.db", "sqlite:////some/file.db"),
    ],
)
def test_a_url_without_driver_takes_the_one_that_the_project_installs(url: str, opened: str) -> None:
    assert with_driver(url) == opened
