"""The card of a version in the model registry."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from workplace import Workplace, run_step

import recdistill
from recdistill.evaluation.intervals import clustered_interval
from recdistill.runs.run import StepRun
from recdistill.steps.promote import promote_run
from recdistill.steps.registered import card, measured

SMALL = {"hidden_size": 8, "heads": 1, "blocks": 1, "epochs": 2}


@pytest.fixture(scope="module")
def registered(tmp_path_factory, downloads, small_files):
    """A place with a registered student, its run's id."""
    place = Workplace(tmp_path_factory.mktemp("registered"), downloads)
    with place.entered():
        assert run_step("backbone", **small_files, **SMALL, register="films") == 0
        yield place.newest("backbone").info.run_id


def test_a_version_has_its_card(registered):
    version = MlflowClient().get_model_version("films", "1")
    text = version.description
    for part in ("**Data.** csv", "**Measured** on test", "**Compared with**", "**Limits.**", "**How to call it.**"):
        assert part in text
    assert "models:/films@champion" in text
    ndcg = MlflowClient().get_run(registered).data.metrics["test/ndcg_at_20"]
    assert f"| NDCG@20 | {ndcg:.4f} |" in text


def test_the_champion_recommends(registered, tmp_path):
    promote_run(registered, "films", "test/ndcg_at_20", seed=1)
    assert str(MlflowClient().get_model_version_by_alias("films", "champion").version) == "1"
    (tmp_path / "histories.jsonl").write_text('{"history": ["i1", "i2"]}\n')
    out = tmp_path / "out.csv"
    assert (
        run_step("recommend", model="models:/films@champion", histories=tmp_path / "histories.jsonl", output=out) == 0
    )
    assert len(pd.read_csv(out)) == 10


def test_a_champion_stays_one_without_a_test(registered, capsys):
    promote_run(registered, "films", "test/ndcg_at_20", seed=1)
    assert "is the champion of films already" in capsys.readouterr().out


def test_terms_stand_on_the_card(registered):
    client = MlflowClient()
    client.set_tag(registered, "recdistill.terms", "Llama 3 licence")
    assert "**Terms.** Llama 3 licence" in card(StepRun(registered, "", "", reused=True), "films")


def test_the_card_of_a_refit_names_the_run_that_was_measured(registered, small_files):
    assert run_step("backbone", **small_files, **SMALL, refit=True, register="served") == 0
    said = MlflowClient().get_model_version("served", "1").description
    assert f"nothing was measured of it: `recdistill compare` tests the run `{registered}`, which it refits." in said
    assert "against other runs" not in said


def test_each_version_is_made_here():
    making = [
        path.name
        for path in Path(recdistill.__file__).parent.rglob("*.py")
        if re.search(r"import.*\bregister_student\b|\bregister_model\(|create_model_version\(", path.read_text("utf-8"))
    ]
    assert sorted(making) == ["registered.py", "served_model.py"]


def test_a_card_says_no_interval_of_a_single_user_and_none_outside_of_what_a_metric_can_be(tmp_path):
    (tmp_path / "ranks").mkdir()

    class Kept:
        def artifact(self, name):
            return tmp_path / name

    def cells(users, ranks):
        pd.DataFrame({"user": users, "rank": ranks}).to_parquet(tmp_path / "ranks" / "test.parquet")
        return [
            line.split("|")[3].strip() for line in measured(Kept()).splitlines() if line.startswith(("| HR", "| ND"))
        ]

    assert cells(["u"] * 9, range(1, 10)) == ["–"] * 4  # noqa: RUF001
    assert cells([f"u{user}" for user in range(9)], [99] * 9) == ["0.0000 to 0.2991"] * 4
    assert cells([f"u{user}" for user in range(9)], [1] * 9) == ["0.7009 to 1.0000"] * 4
    for text in cells([f"u{user}" for user in range(5)], [1, 2, 99, 99, 99]):
        low, high = map(float, text.split(" to "))
        assert 0 <= low < high <= 1


def test_the_interval_of_a_mean_over_users_covers_the_truth_about_as_often_as_it_says():
    drawn, covered, tries = np.random.default_rng(0), 0, 400
    for _ in range(tries):
        users = np.repeat(np.arange(80), drawn.integers(1, 6, 80))
        values = drawn.normal(0, 1, 80)[users] + drawn.normal(0, 1, len(users)) + 3.0
        _, low, high = clustered_interval(values, users)
        covered += low <= 3.0 <= high
    assert 0.91 < covered / tries < 0.98
