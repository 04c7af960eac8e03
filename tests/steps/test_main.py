"""The whole path in one process: what is run, logged, printed, found again and forced."""

import json
import re

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import run_step

from recdistill.config import BaselineConfig, DataConfig, DistillConfig, MainConfig, TeacherConfig, config_of
from recdistill.config.lineage import digest, own_options
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.runs.finished_runs import newest
from recdistill.runs.step_runs import StepRun
from recdistill.steps.estimate import estimate
from recdistill.steps.inputs import data_of
from recdistill.steps.main import APART, HEADLINE, RANKING, Row, header, headline, show
from recdistill.students import ease
from recdistill.students import training as student_module
from recdistill.teachers import training as teacher_module

CONFIGS = {
    "main": MainConfig,
    "prepare": DataConfig,
    "backbone": BaselineConfig,
    "teacher": TeacherConfig,
    "distill": DistillConfig,
}
KEPT = ("config.json", "key.json", "versions.json")
ARTIFACTS = {
    "main": {"results.md", "worth.md", "report.html", "examples.md", "examples.html", "figures", *KEPT},
    "prepare": {"ranks", "recommendations", "figures", "fingerprint.txt", *KEPT},
    "backbone": {"ranks", "recommendations", "figures", "student", *KEPT},
    "teacher": {"ranks", "recommendations", "figures", "teacher", "teacher_outputs", *KEPT},
    "distill": {"ranks", "recommendations", "figures", "student", *KEPT},
}
RECOMMENDERS = ["prepare", "itemknn", "ease", "backbone", "undistilled", "teacher", "distill", "alone", "control"]
METRICS = [f"{part}/{name}_at_{k}" for part in ("val", "test") for name in ("hr", "ndcg") for k in (1, 5, 10, 20)]
METRICS += ["val/mrr", "test/mrr"]
CONTROL = "sasrec, control"


def children(run_id):
    found = MlflowClient().search_runs(
        ["0"], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["attributes.start_time ASC"]
    )
    assert all(run.info.status == "FINISHED" for run in found)
    return found


def step_of(run):
    return run.data.tags["recdistill.step"]


def by_step(run_id):
    """The children of a main run: of each step the last, and recommenders without teacher by their names.

    The teacher without an LLM and its student are ``alone`` and ``control``.
    """
    found = children(run_id)
    alone = {run.info.run_id: run for run in found if run.data.params.get("teacher") == "backbone"}
    alone |= {run.info.run_id: run for run in found if run.data.params.get("teacher.teacher") == "backbone"}
    control = {"alone" if step_of(run) == "teacher" else "control": run for run in alone.values()}
    named = {step_of(run): run for run in found if run.info.run_id not in alone} | control
    plain = {run.data.params["student"]: run for run in reversed(found) if step_of(run) == "backbone"}
    undistilled = {"undistilled": plain["sasrec"], "itemknn": plain["itemknn"], "ease": plain["ease"]}
    return named | undistilled | {"main": mlflow.get_run(run_id)}


def artifact(run, name):
    return StepRun(run.info.run_id, "", "", True).artifact(name)


def options(finished, **changes):
    return {**finished.options, **changes}


def data_of_place(finished):
    return data_of(DataConfig(max_users=finished.options["max_users"]))


def test_each_step_is_a_finished_child_of_one_parent(finished):
    parent = mlflow.get_run(finished.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name.startswith("main ml-100k · ")
    assert "mlflow.parentRunId" not in parent.data.tags
    # The baselines, the student, and the teacher's own frozen SASRec of default options.
    assert [(step_of(run), run.data.params.get("student")) for run in children(finished.run_id)] == [
        ("prepare", None),
        ("backbone", "itemknn"),
        ("backbone", "ease"),
        ("backbone", "sasrec"),
        ("backbone", "sasrec"),
        ("teacher", None),
        ("distill", "sasrec"),
        ("teacher", None),
        ("distill", "sasrec"),
    ]


@pytest.mark.parametrize("step", CONFIGS)
def test_a_run_carries_options_data_code_and_versions(finished, step):
    run, data = by_step(finished.run_id)[step], data_of_place(finished)
    kept = json.loads(artifact(run, "config.json").read_text())
    assert config_of(CONFIGS[step], kept).values() == kept
    own = {name: str(value) for name, value in kept.items() if name in own_options(CONFIGS[step])}
    assert {name: value for name, value in run.data.params.items() if "." not in name} == own
    assert digest(json.loads(artifact(run, "key.json").read_text())) == run.data.tags["recdistill.key"]
    for name in run.data.params.keys() & finished.options.keys():
        if (step, name) != ("backbone", name):
            assert run.data.params[name] == str(finished.options[name])
    tags = run.data.tags
    assert tags["recdistill.fingerprint"] == data.fingerprint
    assert len(tags["recdistill.key"]) == len(tags["recdistill.near_key"]) == 20
    assert tags["recdistill.git_dirty"] in ("true", "false")
    assert "recdistill.failure" not in tags
    datasets = [one.dataset for one in run.inputs.dataset_inputs]
    assert {one.name for one in datasets} == {"ml-100k train", "ml-100k val", "ml-100k test"}
    assert all(data.fingerprint.startswith(one.digest) for one in datasets)
    assert ARTIFACTS[step] <= {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert tags["mlflow.note.content"]


def test_runs_name_the_runs_they_came_from(finished):
    runs = by_step(finished.run_id)
    assert runs["teacher"].data.tags["recdistill.backbone_run_id"] == runs["backbone"].info.run_id
    assert runs["distill"].data.tags["recdistill.teacher_run_id"] == runs["teacher"].info.run_id
    assert runs["distill"].data.tags["recdistill.twin_run_id"] == runs["undistilled"].info.run_id
    table = {"popularity": "prepare", "itemknn": "itemknn", "ease": "ease", "undistilled": "undistilled"}
    for name, step in (table | {"teacher": "teacher", "distilled": "distill"}).items():
        assert runs["main"].data.tags[f"recdistill.{name}_run_id"] == runs[step].info.run_id


@pytest.mark.parametrize("step", RECOMMENDERS)
def test_metrics_are_those_of_the_ranks_kept(finished, step):
    run, data = by_step(finished.run_id)[step], data_of_place(finished)
    for part, samples in (("val", data.validation), ("test", data.test)):
        table = pd.read_parquet(artifact(run, "ranks") / f"{part}.parquet")
        assert table["user"].tolist() == [data.user_ids[user] for user in samples.user]
        assert table["item"].tolist() == [data.item_ids[item] for item in samples.targets]
        assert table["history_length"].tolist() == (samples.end - samples.start).tolist()
        assert table["user"].nunique() == len(data.user_ids)
        expected = metrics_from_ranks(torch.from_numpy(table["rank"].to_numpy().copy()))
        for name, value in expected.items():
            assert run.data.metrics[f"{part}/{name}"] == pytest.approx(value, abs=1e-12)
    assert set(METRICS) <= set(run.data.metrics)


@pytest.mark.parametrize("step", RECOMMENDERS)
def test_recommendations_are_the_head_of_the_ranking_that_the_ranks_are_of(finished, step):
    run, data = by_step(finished.run_id)[step], data_of_place(finished)
    ranks = pd.read_parquet(artifact(run, "ranks") / "test.parquet")
    recommended = pd.read_parquet(artifact(run, "recommendations") / "test.parquet")
    assert recommended[["user", "item"]].equals(ranks[["user", "item"]])
    rows = zip(ranks["item"], ranks["rank"], recommended["items"], strict=True)
    for sample, (target, rank, items) in enumerate(rows):
        start, end = data.test.start[sample], data.test.end[sample]
        assert len(set(items)) == len(items) == 10
        assert not set(items) & {data.item_ids[item] for item in data.test.items[start:end]}
        # Popularity has ties, which count against it in its ranks.
        assert (target in items) == (rank <= 10) or (step == "prepare" and target in items)
        if target in items and step != "prepare":
            assert list(items).index(target) == rank - 1


@pytest.mark.parametrize(
    ("step", "curve"), [("backbone", "val/ndcg_at_10"), ("distill", "val/ndcg_at_10"), ("teacher", "train/total")]
)
def test_training_leaves_a_curve(finished, step, curve):
    run = by_step(finished.run_id)[step]
    history = MlflowClient().get_metric_history(run.info.run_id, curve)
    assert len({point.step for point in history}) == len(history) >= 3
    assert [point.step for point in history] == sorted(point.step for point in history)
    losses = MlflowClient().get_metric_history(run.info.run_id, "train/total")
    # A teacher's few points are of other users each, and noise hides what it learns in them.
    assert step == "teacher" or losses[-1].value < losses[0].value


def test_the_table_holds_every_recommender_under_its_headings(finished):
    runs = by_step(finished.run_id)
    rows = [
        [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        for line in artifact(runs["main"], "results.md").read_text().splitlines()
    ]
    header, rule, *body = rows
    assert {len(row) for row in rows} == {len(header)} == {14}
    assert set("".join(rule)) <= set("-:")
    names = ["popularity", "itemknn", "ease", "sasrec, undistilled", "teacher", "sasrec, distilled", CONTROL]
    assert [row[0] for row in body] == names
    assert header[9:12] == ["warm NDCG@20", "new NDCG@20", "among new"]
    assert header[1:9] == [
        f"{part} {name}@{k}" for part in ("val", "test") for name in ("HR", "NDCG") for k in (10, 20)
    ]
    steps = ("prepare", "itemknn", "ease", "undistilled", "teacher", "distill", "control")
    for row, step in zip(body, steps, strict=True):
        for heading, cell in zip(header[1:9], row[1:9], strict=True):
            part, name, k = re.split(r"[ @]", heading)
            assert float(cell) == pytest.approx(runs[step].data.metrics[f"{part}/{name.lower()}_at_{k}"], abs=5e-5)
        assert bool(row[-2]) == bool(row[-1]) == (step != "prepare")
    for heading in METRICS:
        if heading.endswith(("_at_10", "_at_20")):
            assert runs["main"].data.metrics[heading] == runs["distill"].data.metrics[heading]


def test_the_terminal_shows_progress_the_table_and_how_to_open_the_ui(finished):
    for part, steps in {"1/4": 3, "2/4": 1, "3/4": 1, "4/4": 2}.items():
        assert len(re.findall(rf"^\[{part} .*\]", finished.printed, re.MULTILINE)) == 2 * steps
    lines = finished.printed.splitlines()
    table = artifact(mlflow.get_run(finished.run_id), "results.md").read_text().splitlines()
    for row in table[2:]:
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        shown = next(line for line in lines if line.startswith(f"│ {name} "))
        assert re.findall(r"[\d.,]+", shown.replace(name, "")) == [cell for cell in cells if cell]
    assert f"mlflow ui --backend-store-uri sqlite:///{finished.place.folder}/mlflow.db, then http://" in lines[-1]
    assert lines[-1].endswith("viewStateShareKey=recdistill")
    assert any(re.fullmatch(r"main: about .* at most.*GiB of memory.*", line) for line in lines)


def test_nothing_is_left_in_the_cache(finished):
    assert list((finished.place.folder / "cache" / "runs").iterdir()) == []


def test_a_second_call_trains_nothing_and_shows_the_same(finished, monkeypatch, capsys):
    def trained(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(student_module, "fit", trained)
    monkeypatch.setattr(teacher_module, "fit", trained)
    before = len(MlflowClient().search_runs(["0"]))
    assert run_step("main", **finished.options) == 0
    newest = finished.place.newest()
    assert newest.data.tags["recdistill.reused_run_id"] == finished.run_id
    assert newest.info.status == "FINISHED"
    assert newest.data.metrics == mlflow.get_run(finished.run_id).data.metrics
    assert len(MlflowClient().search_runs(["0"])) == before + 1
    printed = capsys.readouterr().out
    assert printed == finished.printed[finished.printed.index("full ranking") :]


@pytest.mark.slow
def test_another_weight_makes_a_new_distillation_from_the_same_teacher(finished, capsys):
    assert run_step("main", **options(finished, lam=0.9)) == 0
    new = finished.place.newest("main").info.run_id
    assert [step_of(run) for run in children(new)] == ["distill", "distill"]
    assert capsys.readouterr().out.count("was finished before") == 5
    old = by_step(finished.run_id)["distill"]
    assert children(new)[0].data.tags["recdistill.teacher_run_id"] == old.data.tags["recdistill.teacher_run_id"]
    assert children(new)[0].data.tags["recdistill.key"] != old.data.tags["recdistill.key"]


@pytest.mark.slow
def test_force_runs_every_step_again_with_the_same_result(finished):
    assert run_step("main", **options(finished, force=True)) == 0
    again = by_step(finished.place.newest("main").info.run_id)
    first = by_step(finished.run_id)
    # The frozen backbone of default options is no step of its own, and is found.
    steps = ["prepare", "backbone", "backbone", "backbone", "teacher", "teacher", "distill", "distill"]
    assert [step_of(run) for run in children(again["main"].info.run_id)] == steps
    for step in ("prepare", "itemknn", "ease", "undistilled", "teacher", "distill", "control"):
        assert again[step].info.run_id != first[step].info.run_id
        assert again[step].data.tags["recdistill.key"] == first[step].data.tags["recdistill.key"]
        for name in METRICS:
            assert again[step].data.metrics[name] == first[step].data.metrics[name]


def test_a_path_that_is_found_registers_its_student_all_the_same(finished, capsys):
    assert run_step("main", **options(finished, register="found")) == 0
    assert "registered as models:/found/1" in capsys.readouterr().out
    version = MlflowClient().get_model_version("found", "1")
    # Another test may have made it again.
    key = mlflow.get_run(version.run_id).data.tags["recdistill.key"]
    assert key == by_step(finished.run_id)["distill"].data.tags["recdistill.key"]


@pytest.mark.slow
def test_a_teacher_can_be_named(finished, capsys):
    teacher = by_step(finished.run_id)["teacher"].info.run_id
    assert run_step("main", **options(finished, teacher_run_id=teacher, lam=0.8, token_budget=1)) == 0
    made = children(finished.place.newest("main").info.run_id)
    assert [run.data.tags["recdistill.teacher_run_id"] for run in made].count(teacher) == 1


def rows_of(run):
    """Names in a main run's table."""
    return [row["name"] for row in json.loads(artifact(run, "results.json").read_text())]


@pytest.mark.slow
def test_a_baseline_that_cannot_be_fitted_is_left_out_and_named(finished, capsys, monkeypatch):
    # As with a catalogue of tens of thousands of items.
    monkeypatch.setattr(ease, "MOST_ITEMS", 100)
    assert run_step("main", **options(finished, lam=0.7)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[1/4 ease]")]
    assert len(lines) == 1
    assert lines[0].startswith("[1/4 ease] left out: student=ease: inverts a matrix of items by items")
    newest = finished.place.newest("main")
    assert rows_of(newest) == ["popularity", "itemknn", "sasrec, undistilled", "teacher", "sasrec, distilled", CONTROL]
    assert "recdistill.itemknn_run_id" in newest.data.tags
    assert "recdistill.ease_run_id" not in newest.data.tags


@pytest.mark.slow
def test_from_a_folder_of_teacher_outputs_no_teacher_is_made(finished, capsys):
    folder = artifact(by_step(finished.run_id)["teacher"], "teacher_outputs")
    # The LLM is not looked for either.
    asked = {"teacher_files": folder, "baselines": "", "llm": "/no/such/model", "lam": 0.6}
    assert run_step("main", **options(finished, **asked)) == 0
    newest = finished.place.newest("main")
    assert rows_of(newest) == ["popularity", "sasrec, undistilled", "sasrec, distilled"]
    assert [step_of(run) for run in children(newest.info.run_id)] == ["distill"]
    assert not {"recdistill.teacher_run_id", "recdistill.itemknn_run_id"} & newest.data.tags.keys()
    printed = capsys.readouterr().out
    assert "[2/4 " in printed
    assert "[3/4 " not in printed


def test_no_number_of_the_table_is_cut_however_many_columns_there_are(capsys):
    metrics = {name: 0.12345 for name in (*RANKING, *APART.values())} | {"train_seconds": 1234.0}
    metrics["ms_per_1000_recommendations"] = 5678.0
    rows = [Row("sasrec, cheap text and the trained teacher's vectors", "a" * 32, metrics)]
    show(rows)
    said = capsys.readouterr().out
    assert said.count("0.1235") + said.count("0.1234") == len(RANKING) + len(APART)
    assert all(title in said for title in (*header(True), rows[0].name, "1,234", "5,678"))
    assert "…" not in said


def test_the_headline_names_the_best_and_how_far_the_others_are_below():
    rows = [Row(name, "", {HEADLINE: value}) for name, value in (("a", 0.1), ("b", 0.2), ("c", 0.15))]
    assert headline(rows).startswith("Highest test NDCG@10: b, 0.2000; c -25.0%, a -50.0%.")


def test_where_nobody_hits_anything_there_is_a_headline_too():
    assert "a, 0.0000; b +0.0%." in headline([Row(name, "", {HEADLINE: 0.0}) for name in "ab"])


def test_a_row_of_some_users_is_named_and_held_against_the_others_on_their_samples():
    all_of_them = {HEADLINE: 0.2, **dict.fromkeys(RANKING, 0.2)}
    rows = [
        Row("a", "", all_of_them, shared=0.3),
        Row("teacher", "", {HEADLINE: 0.9, **dict.fromkeys(RANKING, 0.9)}, users=12, shared=0.25),
        Row("b", "", {**all_of_them, HEADLINE: 0.1}, shared=0.1),
    ]
    said = headline(rows)
    assert said.startswith(
        "Highest test NDCG@10: a, 0.2000; b -50.0%. On the samples of the 12 users that the teacher "
    )
    assert "ranked: a 0.3000, teacher 0.2500. One seed" in said
    assert [row.cells(apart=False)[0] for row in rows] == ["a", "teacher (12 users)", "b"]


@pytest.mark.slow
def test_the_table_of_a_teacher_that_ranks_some_users(finished, capsys):
    assert run_step("main", **options(finished, ranked_users=12, baselines="")) == 0
    newest = finished.place.newest("main")
    rows = {row["name"]: row for row in json.loads(artifact(newest, "results.json").read_text())}
    assert {name: row["users"] for name, row in rows.items()} == {
        "popularity": 0, "sasrec, undistilled": 0, "teacher": 12, "sasrec, distilled": 0, CONTROL: 0
    }  # fmt: skip
    ranks = {
        name: pd.read_parquet(StepRun(row["run_id"], "", "", True).artifact("ranks") / "test.parquet")
        for name, row in rows.items()
    }
    users = set(ranks["teacher"]["user"])
    assert len(users) == 12
    for name, table in ranks.items():
        shared = table[table["user"].isin(users)]["rank"].to_numpy()
        assert rows[name]["shared"] == pytest.approx(metrics_from_ranks(torch.from_numpy(shared))["ndcg_at_10"])
    assert "ndcg_at_10" in str(rows["teacher"]["metrics"])
    printed = capsys.readouterr().out
    assert "teacher (12 users)" in printed
    assert "On the samples of the 12 users that the teacher ranked: " in printed
    examples = artifact(newest, "examples.md").read_text()
    count = len(ranks["teacher"])
    assert f"over the {count:,} of {len(ranks['popularity']):,} test samples that all of them ranked" in examples
    shown = {line.removeprefix("## User ").strip() for line in examples.splitlines() if line.startswith("## User ")}
    assert shown <= users
    page = artifact(newest, "report.html").read_text()
    assert "teacher (12 users)" in page
    # Who is served well is told of those that ranked all samples, and nobody is compared on a few by the way.
    assert "teacher" not in pd.read_csv(artifact(newest, "figures/slices.csv"))["recommender"].tolist()
    assert run_step("compare", resamples=100) == 0
    assert "some users' samples alone, and are left out" in capsys.readouterr().out
    assert finished.place.newest("compare").data.metrics["compare/samples"] == len(ranks["popularity"])
    assert run_step("compare", runs=rows["teacher"]["run_id"], resamples=100) == 0
    said = artifact(finished.place.newest("compare"), "comparison/comparison.md").read_text()
    assert f"{count} samples of {len(ranks['popularity'])}, which all of them ranked, of 12 users" in said


def test_the_control_learns_from_the_teachers_own_backbone_at_no_price(finished):
    runs = by_step(finished.run_id)
    alone, taught, control = (runs[name].data for name in ("alone", "teacher", "control"))
    assert alone.tags["recdistill.backbone_run_id"] == taught.tags["recdistill.backbone_run_id"]
    assert control.tags["recdistill.teacher_run_id"] == runs["alone"].info.run_id
    # It answers as its backbone does, for all samples that teach.
    for name in METRICS:
        assert alone.metrics[name] == pytest.approx(runs["backbone"].data.metrics[name], abs=1e-9)
    assert alone.metrics["covered_share"] > taught.metrics["covered_share"]
    # But for the teacher, both students have the same options.
    given = {name: value for name, value in control.params.items() if not name.startswith("teacher")}
    assert given == {name: runs["distill"].data.params[name] for name in given}
    # Nobody takes it for what was asked for.
    assert {name: "recdistill.control" in runs[name].data.tags for name in runs} == {
        name: name in ("alone", "control") for name in runs
    }
    assert newest("distill") != runs["control"].info.run_id
    assert newest("teacher") != runs["alone"].info.run_id
    assert runs["control"].info.run_name == "sasrec control"
    parts = estimate("main", config_of(MainConfig, finished.options)).parts
    found = next(part for part in parts if "control" in part.name).found
    assert mlflow.get_run(found).data.tags["recdistill.key"] == runs["control"].data.tags["recdistill.key"]
    said = artifact(runs["main"], "worth.md").read_text()
    assert "items with clicks: distilled " in said
    assert said.count(", control ") == 2


@pytest.mark.slow
def test_there_is_no_control_where_none_is_asked_for(finished):
    assert run_step("main", **options(finished, control=False, baselines="")) == 0
    assert CONTROL not in rows_of(finished.place.newest("main"))
