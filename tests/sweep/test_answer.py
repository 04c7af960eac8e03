"""The answer: tests against scipy's own, options that a command and a file give back."""

import json
import math
import shlex

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_sweep import run

from recdistill.config.command_line import parse
from recdistill.config import StudentConfig, DistillConfig
from recdistill.errors import InputError
from recdistill.sweep import answer
from recdistill.sweep.answer import Row, paired
from recdistill.sweep.space import Objective, Parameter, Space
from recdistill.sweep.study import OpenStudy

SPACE = Space("space.yaml", (Parameter("lam", float, 0.0, 1.0),), (Objective("val/ndcg_at_20", "maximize"),))
# Binary fractions, so that differences are exact.
METRIC = st.integers(0, 1024).map(lambda value: value / 1024)
NUMBERS = st.lists(st.tuples(METRIC, METRIC), min_size=2, max_size=8)


@settings(deadline=None, max_examples=50)
@given(NUMBERS)
def test_the_paired_test_is_students(pairs: list[tuple[float, float]]) -> None:
    better, other = (list(side) for side in zip(*pairs, strict=True))
    found = paired(better, other)
    differences = np.subtract(better, other)
    assert found.difference == pytest.approx(differences.mean(), abs=1e-12)
    if len(set(differences)) > 1:
        expected = stats.ttest_rel(better, other)
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-6)
        low, high = expected.confidence_interval()
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_the_paired_test_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3) with 2 degrees of freedom, p = 1 - t / sqrt(2 + t²).
    t = 2 * math.sqrt(3)
    assert paired([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]).p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert paired([1.0, 2.0], [1.0, 2.0]).p_value == 1.0
    assert not paired([1.0], [0.5]).tested


def rows() -> list[Row]:
    def row(name: str, values: list[float]) -> Row:
        return Row(name, [{"val/ndcg_at_20": v, "test/ndcg_at_20": v - 0.01, "test/hr_at_10": 0.2} for v in values])

    return [row("best", [0.12, 0.13, 0.14]), row("default", [0.10, 0.12, 0.11]), row("undistilled", [0.1, 0.1, 0.1])]


def test_the_table_has_a_line_a_configuration() -> None:
    lines = answer.table(rows(), SPACE).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["best", "default", "undistilled"]
    assert "0.1300 ± 0.0100" in lines[2]
    # A metric that no run has is no number.
    assert "| - |" in lines[2]
    gain = stats.ttest_rel([0.11, 0.12, 0.13], [0.09, 0.11, 0.10])
    assert f"| +0.0200 | {gain.confidence_interval().low:+.4f}" in lines[3]
    assert f"| {gain.pvalue:.3f} |" in lines[3]


def test_the_numbers_are_json() -> None:
    found = json.loads(answer.as_json(rows(), SPACE))
    assert found["tested"] == "test/ndcg_at_20"
    best = found["configurations"]["best"]
    assert best["val/ndcg_at_20"]["seeds"] == [0.12, 0.13, 0.14]
    assert best["test/ndcg_at_10"]["mean"] is None
    assert found["configurations"]["default"]["best_against_it"]["difference"] == pytest.approx(0.02)
    assert answer.summary(rows(), SPACE)["best/test/ndcg_at_20"] == pytest.approx(0.12)


@settings(deadline=None, max_examples=30)
@given(
    lam=st.floats(0, 1e6),
    learning_rate=st.floats(1e-12, 10),
    policy=st.sampled_from(["all", "coverage"]),
    packing=st.booleans(),
    interactions=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20),
)
def test_the_command_and_the_file_give_the_options_back(
    lam: float, learning_rate: float, policy: str, packing: bool, interactions: str
) -> None:
    given_options = {"lam": lam, "learning_rate": learning_rate, "selection_policy": policy, "packing": packing}
    given_options["selection_fraction"] = 0.5
    config = DistillConfig(**given_options, interactions=interactions)  # type: ignore[arg-type]
    options = answer.options_of(config)
    assert DistillConfig(**yaml.safe_load(answer.as_yaml(options))) == config
    words = shlex.split(answer.command(options))
    assert words[:6] == ["mlflow", "run", ".", "-e", "distill", "--env-manager"]
    arguments = [f"--{word}" for word in words[7:] if word != "-P"]
    if "=" not in interactions:
        assert parse(DistillConfig, "distill", arguments) == config


def test_options_leave_out_where_and_whether_to_compute() -> None:
    config = DistillConfig(seed=5, force=True, device="cpu", teacher_run_id="a", backbone_run_id="b", lam=0.75)
    assert answer.options_of(config) == {"lam": 0.75}
    assert answer.options_of(StudentConfig(epochs=3)) == {"epochs": 3}


def test_the_best_is_the_best(opened: OpenStudy, space: Space) -> None:
    with pytest.raises(InputError, match="no trial is complete"):
        answer.best_trials(opened.study, space)
    run(opened, space, 9)
    (best,) = answer.best_trials(opened.study, space)
    assert best.value == max(trial.value for trial in opened.study.get_trials() if trial.value is not None)


def test_the_front_is_not_dominated(tmp_path: object) -> None:
    import optuna

    objectives = (Objective("val/ndcg_at_20", "maximize"), Objective("latency_ms", "minimize"))
    space = Space("space.yaml", SPACE.parameters, objectives)
    study = optuna.create_study(directions=["maximize", "minimize"])
    points = [(0.1, 1.0), (0.2, 2.0), (0.15, 3.0), (0.3, 9.0), (0.05, 1.5)]
    for lam, values in enumerate(points):
        distribution = optuna.distributions.FloatDistribution(0, 9)
        study.add_trial(
            optuna.create_trial(params={"lam": float(lam)}, distributions={"lam": distribution}, values=values)
        )
    front = answer.best_trials(study, space)
    assert [trial.number for trial in front] == [3, 1, 0]
    lines = answer.front(front, space).splitlines()
    assert lines[0] == "trial,val/ndcg_at_20,latency_ms,lam"
    assert lines[1] == "3,0.3,9.0,3.0"
    assert answer.tested_metric(space) == "test/ndcg_at_20"
