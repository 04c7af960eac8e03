"""`benchmarks/peers.py` without any of the libraries: its ranks, its clock, its data and its table."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recdistill.config.data import DataConfig
from recdistill.data.load import load_data
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.evaluation.ranking import rank_of_target

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peer_libraries")]

import measurement  # noqa: E402
import peers  # noqa: E402
import recdistill_sasrec  # noqa: E402


@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_those_of_the_package(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Few values, so that many tie, and some items that a library does not know.
    scores = random.integers(0, 4, (6, 15)).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    target = random.integers(0, 15, 6)
    seen = [random.choice(15, random.integers(0, 8), replace=False) for _ in range(6)]
    rows = np.repeat(np.arange(6), [len(items) for items in seen])
    pairs = (torch.from_numpy(rows), torch.from_numpy(np.concatenate(seen).astype(np.int64)))
    expected = rank_of_target(torch.from_numpy(scores), torch.from_numpy(target), pairs)
    ranks = measurement.rank_of_target(scores, target, seen)
    assert ranks.tolist() == expected.tolist()
    assert measurement.ndcg_at_10(ranks) == pytest.approx(metrics_from_ranks(expected)["ndcg_at_10"], abs=1e-12)


def test_ties_count_against_the_model() -> None:
    scores = np.array([[0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.0]], dtype=np.float32)
    assert measurement.rank_of_target(scores, np.array([2, 2]), [np.array([0]), np.array([0])]).tolist() == [3, 2]
    assert measurement.rank_of_target(scores, np.array([2, 2]), [np.array([2]), np.array([1])]).tolist() == [5, 2]


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        measurement.rank_of_target(np.array([[math.nan, 1.0]]), np.array([1]), [np.array([], dtype=np.int64)])


def test_the_split_read_is_that_of_the_package(tmp_path: Path) -> None:
    path = peers.write_data("3000", tmp_path, 0)
    split = measurement.read_split(path)
    where = {"interactions": str(path), "items": str(path.with_name("items.csv"))}
    data = load_data(DataConfig(dataset="csv", split="leave-one-out", **where))
    assert split.num_items == data.num_items == 3000
    assert split.validation.tolist() == data.validation.targets.tolist()
    assert split.test.tolist() == data.test.targets.tolist()
    histories = [data.test.items[start:end] for start, end in zip(data.test.start, data.test.end, strict=True)]
    assert all(np.array_equal(*pair) for pair in zip(split.test_histories, histories, strict=True))
    # Every item is in a window, so that no library has fewer than the others; no history has one twice.
    assert set(np.concatenate(split.windows).tolist()) == set(range(3000))
    assert all(len(set(items.tolist())) == len(items) for items in histories)


def test_their_layout_is_one_window_a_user(tmp_path: Path) -> None:
    path = peers.write_data("1000", tmp_path, 0)
    where = {"interactions": str(path), "items": str(path.with_name("items.csv"))}
    data = recdistill_sasrec.one_window(load_data(DataConfig(dataset="csv", split="leave-one-out", **where)))
    windows = measurement.read_split(path).windows
    epochs = [list(recdistill_sasrec.whole_windows(data, 1, epoch)) for epoch in (0, 1)]
    for batches in epochs:
        assert all(110 < len(batch.length) < 150 for batch in batches[:-1])
        found = []
        for batch in batches:
            for row, length in enumerate(batch.length.tolist()):
                # Every place of a window has the next item as its target.
                own = batch.row == row
                assert batch.column[own].tolist() == list(range(length))
                found.append([int(batch.history[row, 0]), *batch.target[own].tolist()])
                assert batch.history[row, 1:length].tolist() == found[-1][1:-1]
        assert sorted(found) == sorted(items.tolist() for items in windows)
    assert epochs[0][0].target.tolist() != epochs[1][0].target.tolist()


def test_a_catalogue_that_windows_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "USERS", 20)
    monkeypatch.setattr(peers, "INTERACTIONS", 2_000)
    with pytest.raises(SystemExit, match="no room"):
        peers.made_up_items(3_000, 0)


def clocked(monkeypatch: pytest.MonkeyPatch, seconds: float, patience: int, quality: list[float]):
    """A training of one user whose validations find these NDCG, and a function that lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(measurement.time, "process_time", lambda: now[0])
    found = iter(quality)
    monkeypatch.setattr(measurement, "ndcg_at_10", lambda ranks: next(found))

    def score(histories):
        now[0] += 50
        return np.zeros((len(histories), 3), dtype=np.float32)

    split = measurement.Split([np.array([0])], np.array([1]), np.array([2]), 3)
    training = measurement.Training(seconds, patience, score, lambda: {"epoch": training.epochs}, split)

    def wait(passed: float) -> None:
        now[0] += passed

    return training, wait


def test_validation_is_not_in_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    training, wait = clocked(monkeypatch, 10, 5, [0.1, 0.3, 0.2])
    training.start()
    for left in (True, True, False):
        wait(4)
        assert training.step(7) is left
        assert training.end_epoch() is left
    assert (training.used, training.positions, training.epochs) == (12, 21, 3)
    assert (training.best, training.kept) == (0.3, {"epoch": 1})
    # A second call, as after a library's own end, changes nothing.
    assert not training.end_epoch()
    assert training.epochs == 3


def test_patience_ends_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    training, wait = clocked(monkeypatch, 1000, 2, [0.3, 0.2, 0.1])
    training.start()
    went_on = []
    for _ in range(3):
        wait(1)
        training.step(1)
        went_on.append(training.end_epoch())
    assert went_on == [True, True, False]


def line(library: str, catalogue: str, speed: float, peak: float, seed: int = 1) -> dict:
    return {
        "library": library, "catalogue": catalogue, "positions_per_second": speed, "peak_mib": peak, "seed": seed,
        "training_mib": peak - 400, "ndcg_at_10": 0.1, "settings": f"of {library}",
    }  # fmt: skip


def test_the_table_has_medians_and_what_failed() -> None:
    lines = [line("RePlay 0.22.0", "ml-100k", 19_000, 800, seed) for seed in (1, 2)]
    lines += [line("RePlay 0.22.0", "ml-100k", 25_000, 900, 3), line("RePlay 0.22.0", "20000", 3_000, 2_000)]
    lines += [line("ours, their layout", "ml-100k", 38_000, 500), line("ours, their layout", "20000", 7_500, 1_000)]
    lines += [{"library": "RecBole 1.2.1", "catalogue": one, "failed": "not installed"} for one in ("ml-100k", "20000")]
    rows = peers.table(lines).splitlines()
    assert rows[0].startswith("|  | ML-100K, positions/s | 20,000 items, positions/s |")
    assert rows[0].count("NDCG@10") == 1
    assert "| RePlay 0.22.0 | 19,000 | 3,000 | 800 | 2,000 | 0.100 |" in rows
    assert "| RecBole 1.2.1 | - | - | - | - | - |" in rows
    assert rows.count("- RecBole 1.2.1: not installed") == 1
    said = peers.checked(lines)
    assert "ML-100K, ours, their layout: 2.00 times the speed of RePlay 0.22.0, the fastest (goal 2.2)" in said
    assert (
        "20,000 items, ours, their layout: 0.50 times the peak memory of RePlay 0.22.0, the fastest (goal 0.33)" in said
    )
    assert "ours, by default" not in said


def test_a_library_that_cannot_be_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def failing(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: No matching distribution found\n")

    monkeypatch.setattr(peers.subprocess, "run", failing)
    monkeypatch.setattr(peers.venv, "create", lambda place, with_pip: Path(place).mkdir(parents=True))
    python, reason = peers.python_of("RePlay 0.22.0", tmp_path, "")
    assert python is None
    assert reason.endswith("No matching distribution found")
    # An environment that was not finished is made anew; a finished one is found.
    peers.python_of("RePlay 0.22.0", tmp_path, "")
    assert len(calls) == 2
    note = tmp_path / "replay-0.22.0" / "installed.json"
    note.write_text(json.dumps(list(peers.PEERS["RePlay 0.22.0"].packages)))
    assert peers.python_of("RePlay 0.22.0", tmp_path, "") == (note.with_name("bin") / "python", "")
    assert len(calls) == 2


def test_every_library_has_its_program() -> None:
    for peer in peers.PEERS.values():
        assert (peers.PROGRAMS / peer.program).is_file()
