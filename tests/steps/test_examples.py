"""Recommendations side by side, read from the runs of ``main``."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from small_data import write_csv

from recdistill.config import DataConfig
from recdistill.data.load import load_data
from recdistill.report.examples import plain
from recdistill.runs.step_runs import StepRun
from recdistill.steps.examples import drawn_samples, log_examples, tables_of
from recdistill.steps.inputs import data_of

NAMES = ("popularity", "sasrec, undistilled", "teacher", "sasrec, distilled")
TAGS = {name: f"recdistill.{name.rpartition(', ')[2]}_run_id" for name in NAMES}


def run_of(run_id):
    return StepRun(run_id, "", "", reused=True)


@pytest.fixture
def data(finished):
    return data_of(DataConfig(max_users=finished.options["max_users"]))


@pytest.fixture
def found(finished):
    tags = mlflow.get_run(finished.run_id).data.tags
    return {name: run_of(tags[tag]) for name, tag in TAGS.items()}


@pytest.fixture
def empty_run(finished):
    run = MlflowClient().create_run("0", tags={"recdistill.step": "foreign"})
    yield run_of(run.info.run_id)
    MlflowClient().set_terminated(run.info.run_id)


def artifact_names(run):
    return {file.path for file in MlflowClient().list_artifacts(run.run_id)}


def test_ten_users_with_what_each_recommender_says_to_them(finished, data, found):
    text = run_of(finished.run_id).artifact("examples.md").read_text()
    page = run_of(finished.run_id).artifact("examples.html").read_text()
    note, *sections = text.split("\n## User ")
    tables = {name: pd.read_parquet(of.artifact("recommendations/test.parquet")) for name, of in found.items()}
    samples = drawn_samples(data, seed=1)
    assert len(samples) == len(sections) == page.count("<section") == 10
    for name, of in found.items():
        assert f"{name} {of.metrics()['test/hr_at_5']:.3f}" in note
        assert name in page
    title_of = dict(zip(data.item_ids, data.titles, strict=True))
    for sample, section in zip(samples, sections, strict=True):
        start, end = data.test.start[sample], data.test.end[sample]
        assert section.startswith(f"{data.user_ids[data.test.user[sample]]}\n")
        history = [data.titles[item] for item in data.test.items[start:end]]
        assert f"History: ({len(history) - 5} before) → {plain(' → '.join(history[-5:]))}\n" in section
        target = data.item_ids[data.test.items[end]]
        assert f"Next: **{plain(title_of[target])}**\n" in section
        rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        assert [cell.strip() for cell in rows[0][1:]] == list(found)
        for place in range(5):
            for column, table in enumerate(tables.values(), start=1):
                item = table["items"][sample][place]
                shown = plain(title_of[item])
                assert rows[place + 2][column].strip() == (f"**{shown}** ✓" if item == target else shown)


def test_the_seed_chooses_the_users(data):
    assert drawn_samples(data, 1) == drawn_samples(data, 1)
    assert drawn_samples(data, 1) != drawn_samples(data, 2)


def test_of_a_user_with_several_test_samples_the_last_is_shown(tmp_path):
    data = load_data(DataConfig(**write_csv(tmp_path), split="chronological"))
    samples = drawn_samples(data, 3)
    users = data.test.user[samples]
    assert len(set(users)) == len(users) == min(10, len(set(data.test.user)))
    for sample, user in zip(samples, users, strict=True):
        assert data.test.end[sample] == data.test.end[data.test.user == user].max()
    assert np.bincount(data.test.user).max() > 1


def test_the_picture_of_main_is_of_all_its_recommenders(finished, found):
    table = pd.read_csv(run_of(finished.run_id).artifact("figures/slices.csv"))
    assert list(dict.fromkeys(table["recommender"])) == list(found)
    for name, of in found.items():
        whole = table[(table["recommender"] == name) & (table["kind"] == "all")]
        assert whole["hr_at_10"].tolist() == pytest.approx([of.metrics()["test/hr_at_10"]])
        own = pd.read_csv(of.artifact("figures/slices.csv"))
        assert "recommender" not in own
        assert table.loc[table["recommender"] == name, "hr_at_10"].tolist() == pytest.approx(own["hr_at_10"].tolist())
    for of in (run_of(finished.run_id), *found.values()):
        assert of.artifact("figures/slices.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_from_before_recommendations_were_kept_is_left_out_and_named(finished, data, found, empty_run):
    # The run of main itself keeps none.
    log_examples(empty_run, data, found | {"teacher": run_of(finished.run_id)}, seed=1)
    text = empty_run.artifact("examples.md").read_text()
    assert "Left out, for no recommendations of it were kept: teacher." in text
    header = next(line for line in text.splitlines() if line.startswith("| |"))
    assert header == "| | popularity | sasrec, undistilled | sasrec, distilled |"


def test_where_no_run_keeps_any_there_are_no_examples(finished, data, empty_run):
    log_examples(empty_run, data, {"teacher": run_of(finished.run_id)}, seed=1)
    assert artifact_names(empty_run) == set()


def test_tables_of_other_samples_are_not_taken(finished, data, found):
    other = data_of(DataConfig(max_users=30))
    assert list(tables_of(found, "recommendations/test.parquet", data)) == list(found)
    assert tables_of(found, "recommendations/test.parquet", other) == {}
