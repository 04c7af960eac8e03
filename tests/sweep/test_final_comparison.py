"""The final comparison: the test of `compare` on the ranks of the final runs, and the table of it."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from recdistill.evaluation.paired_tests import RESAMPLES, holm, paired_tests
from recdistill.report.compared import EvaluatedRun, EvaluatedSamples
from recdistill.runs.compared_runs import ComparedRuns
from recdistill.sweep import final_comparison
from recdistill.sweep.final_comparison import Gain, Row, as_json, deciding_metric, gains, summary, table
from recdistill.sweep.space import Direction, Objective, Parameter, Space
from recdistill.sweep.trainings import Trained

USERS = 60
#: NDCG 1, 0.5 and 1 / log2(7).
RANKS = {"best": (1, 1), "default": (1, 3), "undistilled": (3, 6)}


def space_of(*metrics: str) -> Space:
    def direction(metric: str) -> Direction:
        return "maximize" if metric.startswith("val/") else "minimize"

    objectives = tuple(Objective(metric, direction(metric)) for metric in metrics)
    return Space("space.yaml", (Parameter("lam", float, 0.0, 1.0),), objectives)


SPACE = space_of("val/ndcg_at_20")


def rows(seeds: int = 3) -> list[Row]:
    """Every configuration with runs of its own, its metrics a little better each seed."""

    def trained(name: str, seed: int) -> Trained:
        level = {"best": 0.13, "default": 0.11, "undistilled": 0.1}[name] + 0.01 * seed
        return Trained(f"{name}{seed}", {"val/ndcg_at_20": level, "test/ndcg_at_20": level - 0.01})

    return [Row(name, [trained(name, seed) for seed in range(seeds)]) for name in RANKS]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs that keep ranks: those of `RANKS`, the first for half of the users. Returns the ids that are asked for."""
    asked: list[list[str]] = []

    def compared_runs(ids: Sequence[str], condition: str, baseline: str, part: str) -> ComparedRuns:
        assert (condition, part) == ("", "test")
        assert baseline in ids
        asked.append(list(ids))
        kept = {run_id: np.array([*RANKS[run_id.rstrip("0123456789")]] * (USERS // 2)) for run_id in ids}
        runs = [EvaluatedRun(run_id, run_id, "distill", 1, {}, "data", "data", True, "") for run_id in ids]
        samples = EvaluatedSamples(kept, np.arange(USERS), np.full(USERS, 5), np.full(USERS, 9))
        return ComparedRuns(tuple(runs), samples, baseline, 0, pa.table({"user": [""], "item": [""]}))

    monkeypatch.setattr(final_comparison, "compared_runs", compared_runs)
    return asked


def test_gains_are_of_the_best_over_each_other_one(stored: list[list[str]]) -> None:
    found = gains(rows(), SPACE, seed=1)
    assert list(found) == ["default", "undistilled"]
    assert found["default"].difference == pytest.approx(0.25)
    assert found["undistilled"].difference == pytest.approx(1 - (0.5 + 1 / np.log2(7)) / 2)
    for gain in found.values():
        assert 0 < gain.low < gain.difference < gain.high
        assert gain.p_value < 0.001
    assert stored == [[f"{name}{seed}" for name in RANKS for seed in range(3)]]


def test_the_test_is_the_paired_one_by_user_as_compare_makes_it(stored: list[list[str]]) -> None:
    # Half of the users differ by 0.5, with one seed there is no spread over seeds.
    found = gains(rows(seeds=1), SPACE, seed=4)["default"]
    differences = np.stack([np.tile([0.0, -0.5], USERS // 2), np.tile([0.5, 1 / np.log2(7)], USERS // 2) - 1], axis=1)
    expected = paired_tests(differences, np.ones(USERS), resamples=RESAMPLES, seed=4)
    assert (found.low, found.high) == pytest.approx((-expected.high[0], -expected.low[0]), abs=1e-6)
    # Corrected for HR at 20, too, which is the same for all.
    assert found.p_value == pytest.approx(holm([*expected.p_value, 1.0, 1.0])[0])


def test_a_best_that_is_worse_has_a_negative_gain(stored: list[list[str]]) -> None:
    best, default, undistilled = rows()
    found = gains([undistilled, default, best], SPACE, seed=1)
    assert found["best"].difference < found["default"].difference < 0
    assert found["best"].high < 0


def test_the_default_that_was_best_gains_nothing(stored: list[list[str]]) -> None:
    best, _, undistilled = rows()
    found = gains([best, Row("default", best.results), undistilled], SPACE, seed=1)
    assert found["default"] == Gain(0.0, 0.0, 0.0, 1.0, same=True)
    assert found["undistilled"].difference > 0
    assert gains([best, Row("default", best.results)], SPACE, seed=1) == {
        "default": Gain(0.0, 0.0, 0.0, 1.0, same=True)
    }
    assert len(stored) == 1


GAINED = {"default": Gain(0.02, 0.005, 0.035, 0.0123), "undistilled": Gain(0.03, -0.001, 0.061, 0.2)}


def test_the_table_has_a_line_a_configuration() -> None:
    lines = table(rows(), SPACE, GAINED).splitlines()
    assert lines[0].endswith("| best's gain in test/ndcg_at_20 | 95 % interval | p |")
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["best", "default", "undistilled"]
    assert "0.1400 ± 0.0100" in lines[2]
    # A metric that no run has is no number.
    assert "| - |" in lines[2]
    assert lines[2].endswith("|  |  |  |")
    assert lines[3].endswith("| +0.0200 | +0.0050 … +0.0350 | 0.012 |")
    assert lines[4].endswith("| +0.0300 | -0.0010 … +0.0610 | 0.200 |")
    assert lines[6] == (
        "Mean ± deviation over 3 seeds that no trial had; gain, interval and p by the paired permutation test by user, "
        "as compare makes it; chosen by validation alone."
    )
    assert "One seed, so the test says nothing about the luck of a seed" in table(rows(1), SPACE, GAINED)


def test_the_numbers_are_json() -> None:
    found = json.loads(as_json(rows(), SPACE, GAINED))
    assert found["tested"] == "test/ndcg_at_20"
    best = found["configurations"]["best"]
    assert best["val/ndcg_at_20"]["seeds"] == pytest.approx([0.13, 0.14, 0.15])
    assert best["test/ndcg_at_10"]["mean"] is None
    assert "best_against_it" not in best
    expected = {"difference": 0.02, "low": 0.005, "high": 0.035, "p_value": 0.0123, "same": False}
    assert found["configurations"]["default"]["best_against_it"] == expected
    assert summary(rows(), SPACE)["best/test/ndcg_at_20"] == pytest.approx(0.13)


def test_the_tested_metric_is_that_of_the_first_validation_metric() -> None:
    assert deciding_metric(space_of("val/mrr", "val/ndcg_at_10")) == "test/mrr"
    assert deciding_metric(space_of("latency_ms", "val/hr_at_5")) == "test/hr_at_5"
    assert deciding_metric(space_of("latency_ms", "train_seconds")) == "test/ndcg_at_20"
