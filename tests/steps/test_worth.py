"""``worth`` and ``study`` on small data over the tiny llama: every row is made, and what is said is of the runs."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest

from recdistill.config import BaselineConfig, MainConfig, StudyConfig, TeacherConfig, WorthConfig, changed, narrow
from recdistill.errors import InputError
from recdistill.runs.finished_runs import options_of_run
from recdistill.runs.served_model import student_folder
from recdistill.runs.step_runs import entry_run
from recdistill.steps import study as study_module
from recdistill.steps import worth as worth_module
from recdistill.steps.backbone import backbone
from recdistill.steps.estimate import estimate
from recdistill.steps.main import main
from recdistill.steps.study import study
from recdistill.steps.worth import Cost, check_seeds, cost_of, reading_of_frozen, rounds_of, worth
from recdistill.students.build import load_recommender
from recdistill.students.mapped import MappedStudent
from recdistill.study.cells import RANKS

SMALL = {
    "hidden_size": 16, "blocks": 1, "heads": 1, "epochs": 2, "token_budget": 1500, "tokens_per_batch": 300, "top_n": 12,
    "teacher_window": 10, "teacher_history": 4, "new_items": 0.2, "outputs_token_budget": 3000, "candidate_topk": 5,
}  # fmt: skip
#: Steps of the two students that differ by the teacher alone, by the tag of their run.
STUDENTS = {"distilled": "distill", "from_cheap_text": "backbone"}
PLAN = """\
shared: {new_items: 0.2, epochs: 2, hidden_size: 16}
data:
  small: {dataset: csv, interactions: INTERACTIONS, items: ITEMS}
students:
  sasrec: {student: sasrec, blocks: 1, heads: 1}
seeds: [1, 2]
rows:
  popularity: {step: prepare, students: []}
  ids: {step: backbone}
  cheap: {step: map_items, of: {student_run_id: ids}, options: {views: tfidf}}
comparisons:
  - {row: cheap, against: ids}
"""


@pytest.mark.slow
def test_worth_has_every_row_and_a_sentence(place, small_files, tiny_llm_folder, capsys):
    options = {**small_files, **SMALL, "llm": str(tiny_llm_folder), "cheap_views": "tfidf"}
    with entry_run("worth"):
        run = worth(WorthConfig(**options))
    said = run.artifact("worth.md").read_text()
    assert said.startswith("**The LLM is ")
    assert "One seed" in said
    for row in ("cheap text + frozen LLM", "cheap text + teacher", "items with clicks: distilled"):
        assert row in said
    assert "4,500 LLM tokens" in said
    assert "to read the items' texts and " in said
    assert re.search(r"- price of cheap text \+ frozen LLM: [1-9][\d,]* LLM tokens and \d+ s once, no teacher", said)
    assert said in capsys.readouterr().out
    metrics = run.metrics()
    assert "worth/cheap_text_teacher_over_cheap_text_new_among_new/difference" in metrics
    tags = mlflow.get_run(run.run_id).data.tags
    distilled, plain = (options_of_run(tags[f"recdistill.{name}_run_id"], [step])[2] for name, step in STUDENTS.items())
    for student in (distilled, plain):
        assert (student["item_init"], student["views"]) == ("views", "tfidf")
    ids = options_of_run(tags["recdistill.ids_run_id"], ["backbone"])[2]
    assert "views" not in ids
    # A teacher that is named is the one, whatever the budgets are.
    named = options | {"teacher_run_id": tags["recdistill.teacher_run_id"], "token_budget": 1, "worth_margin": 0.02}
    with entry_run("worth"):
        again = worth(WorthConfig(**named))
    assert mlflow.get_run(again.run_id).data.tags["recdistill.teacher_run_id"] == tags["recdistill.teacher_run_id"]
    assert again.artifact("worth.md").read_text() == said


@pytest.mark.slow
def test_a_teacher_that_knows_no_item_by_its_text_leaves_its_rows_out(
    place, small_files, tiny_llm_folder, monkeypatch, capsys
):
    options = {**small_files, **SMALL, "llm": str(tiny_llm_folder), "cheap_views": "tfidf", "seed": 5}
    monkeypatch.setattr(worth_module, "teacher_outputs_of", lambda run, data: SimpleNamespace(item_view=None))
    with entry_run("worth"):
        run = worth(WorthConfig(**options))
    said = run.artifact("worth.md").read_text()
    assert "cheap text + frozen LLM" in said
    assert "cheap text + teacher" not in said
    assert ": distilled + cheap text 0." in said
    assert "recdistill.distilled_cheap_text_run_id" in mlflow.get_run(run.run_id).data.tags


def test_a_backbone_of_one_draw_is_refused_for_several_seeds_before_any_work(place, small_files):
    small = {name: SMALL[name] for name in ("hidden_size", "blocks", "heads", "epochs", "new_items", "candidate_topk")}
    options = {**small_files, **small, "teacher": "backbone", "cheap_views": ""}
    with entry_run("backbone"):
        frozen = backbone(narrow(WorthConfig(**options), BaselineConfig))
    config = WorthConfig(**options, backbone_run_id=frozen.run_id, seeds=2)
    before = len(mlflow.search_runs(search_all_experiments=True, output_format="list"))
    with pytest.raises(InputError, match=r"^seeds=2: for seed 2, backbone_run_id=.* was made for data .* give seeds=1"):
        worth(config)
    assert len(mlflow.search_runs(search_all_experiments=True, output_format="list")) == before
    check_seeds(changed(config, seeds=1))


def test_force_makes_cells_again(place, small_files, tmp_path):
    plan = tmp_path / "small.yaml"
    plan.write_text(PLAN.replace("INTERACTIONS", small_files["interactions"]).replace("ITEMS", small_files["items"]))
    options = {"plan": str(plan), "results": str(tmp_path / "results"), "cells": "small/popularity/*"}

    def runs():
        return [json.loads(path.read_text())["run_id"] for path in sorted(tmp_path.glob("results/*/*/*.json"))]

    with entry_run("study"):
        study(StudyConfig(**options))
    first = runs()
    with entry_run("study"):
        study(StudyConfig(**options))
    assert runs() == first
    with entry_run("study"):
        study(StudyConfig(**options, force=True, most_cells=1))
    assert [one == other for one, other in zip(runs(), first, strict=True)] == [False, True]


def test_cells_of_a_file_that_has_grown_are_made_again(place, small_files, tmp_path, capsys):
    grown = tmp_path / "interactions.csv"
    grown.write_text(Path(small_files["interactions"]).read_text())
    plan = tmp_path / "small.yaml"
    plan.write_text(PLAN.replace("INTERACTIONS", str(grown)).replace("ITEMS", small_files["items"]))
    options = {"plan": str(plan), "results": str(tmp_path / "results")}
    with entry_run("study"):
        study(StudyConfig(**options, cells="small/popularity/any-1"))
    lines = grown.read_text().splitlines()
    others = [f"other{line}" for line in lines[1:]]
    grown.write_text("\n".join([*lines, *others]) + "\n")
    with entry_run("study"):
        study(StudyConfig(**options, cells="small/popularity/*"))
    said = capsys.readouterr().out
    assert "today's, and not counted: small/popularity/any-1" in said
    assert "[study 2/2" in said
    kept = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("results/*/*/*.json"))]
    assert len({one["undrawn"] for one in kept}) == 1
    assert kept[0]["undrawn"] != kept[0]["fingerprint"] != kept[1]["fingerprint"]


def test_the_price_is_of_all_rounds_and_of_a_servers_own_count(monkeypatch):
    ours = TeacherConfig(token_budget=100, outputs_token_budget=30, contrast_token_budget=7)
    server = TeacherConfig(teacher="endpoint", endpoint_model="m")
    monkeypatch.setattr(worth_module, "options_of_teacher", lambda run: run.options)

    def made(options, **metrics):
        return SimpleNamespace(options=options, metrics=lambda: metrics)

    first, second = made(ours, train_seconds=5.0, outputs_seconds=2.0), made(ours, outputs_seconds=3.0)
    # A run of a version that did not count the items' texts is priced all the same.
    assert cost_of(first, []) == Cost(137, 7.0, None)
    assert cost_of(first, [second, second]) == Cost(197, 13.0, None)
    assert cost_of(first, [made(changed(ours, outputs_token_budget=0))]).tokens == 0
    counted = made(ours, train_seconds=5.0, outputs_seconds=2.0, **{"teacher/text_tokens": 90.0})
    assert cost_of(counted, [second, second]) == Cost(197, 13.0, 90)
    spent = {"endpoint/prompt_tokens": 40.0, "endpoint/answer_tokens": 2.0, "endpoint/seconds": 9.0}
    assert cost_of(made(server, **spent), [made(server, **spent)]) == Cost(84, 18.0)


def test_the_frozen_llm_has_a_price_of_its_own():
    def made(tokens, seconds):
        return SimpleNamespace(metrics=lambda: {"map/text_tokens": tokens, "map/text_seconds": seconds})

    rows = [{"cheap text": made(30.0, 2.0), "cheap text + frozen LLM": made(more, 5.0)} for more in (130.0, 150.0)]
    assert reading_of_frozen(rows) == (110, 3.0)
    assert reading_of_frozen([{"cheap text": made(30.0, 2.0)}]) is None


def test_the_rounds_end_at_the_first_teacher_whichever_run_it_is(monkeypatch):
    keys = {"student": "s", "round 3": "k3", "round 2": "k2", "before": "k1", "again": "k1", "earlier": "k0"}
    links = {"student": "round 3", "round 3": "round 2", "round 2": "before"}
    runs = {name: SimpleNamespace(run_id=name, key=key) for name, key in keys.items()}
    tags = {name: {"recdistill.teacher_run_id": links[name]} if name in links else {} for name in keys}
    monkeypatch.setattr(worth_module, "run_of", lambda name: SimpleNamespace(data=SimpleNamespace(tags=tags[name])))
    monkeypatch.setattr(worth_module, "linked_run", lambda run, step: runs[links[run.run_id]])
    # "again" was made again by force; "earlier" is of another version, with another key.
    for first in ("before", "again", "earlier"):
        found = rounds_of(runs["student"], runs[first])
        assert [run.run_id for run in found] == ["round 3", "round 2"]
    links["student"] = "before"
    assert rounds_of(runs["student"], runs["again"]) == []


@pytest.mark.slow
def test_main_starts_its_students_from_cheap_text_where_it_draws_new_items(place, small_files, tiny_llm_folder, capsys):
    options = {**small_files, **SMALL, "llm": str(tiny_llm_folder), "cheap_views": "tfidf", "baselines": "", "seed": 3}
    config = MainConfig(**options, register="films")
    parts = [part.name for part in estimate("main", config).parts]
    assert len(parts) == 8
    assert parts[2] == "sasrec undistilled from texts, seed 3"
    with entry_run("main"):
        run = main(config)
    printed = capsys.readouterr().out
    assert len(re.findall(r"^\[2/4 sasrec, from cheap text\]", printed, re.MULTILINE)) == 2
    names = [row["name"] for row in json.loads(run.artifact("results.json").read_text())]
    assert names == [
        "popularity", "sasrec, undistilled", "sasrec, from cheap text", "teacher", "sasrec, distilled",
        "sasrec, control", "cheap text", "cheap text + frozen LLM", "cheap text + teacher",
        "distilled + cheap text + teacher", "control + cheap text",
    ]  # fmt: skip
    tags = mlflow.get_run(run.run_id).data.tags
    assert options_of_run(tags["recdistill.distilled_run_id"], ["distill"])[2]["views"] == "tfidf"
    served = load_recommender(student_folder("models:/films/1")[0])
    assert isinstance(served, MappedStudent)
    # Without cheap text it is the path without texts.
    assert len(estimate("main", changed(config, cheap_views="")).parts) == 5
    with pytest.raises(InputError, match=r"^cheap_views=sentence/tfidf: students start from one choice"):
        changed(config, cheap_views="sentence/tfidf")


@pytest.mark.slow
def test_a_study_makes_its_cells_goes_on_and_reports(place, small_files, tmp_path, capsys):
    plan = tmp_path / "small.yaml"
    plan.write_text(PLAN.replace("INTERACTIONS", small_files["interactions"]).replace("ITEMS", small_files["items"]))
    options = {"plan": str(plan), "results": str(tmp_path / "results")}
    with entry_run("study"):
        study(StudyConfig(**options, cells="small/cheap/sasrec-1"))
    said = capsys.readouterr().out
    assert "0 of 6 cells are finished, 0 of the 2 of `cells`" in said
    assert "[study 2/2" in said
    with entry_run("study"):
        study(StudyConfig(**options, most_cells=1))
    kept = sorted(
        path.relative_to(tmp_path / "results").with_suffix("") for path in tmp_path.glob("results/*/*/*.json")
    )
    assert len(kept) == 3
    assert "3 finished cells of 6" in (tmp_path / "results" / "report.md").read_text()
    with entry_run("study"):
        run = study(StudyConfig(**options))
    assert "[study 1/3" in capsys.readouterr().out
    text = (tmp_path / "results" / "report.md").read_text()
    assert run.artifact("report.md").read_text() == text
    assert "6 finished cells of 6" in text
    assert "| cheap | ids | new targets, among the new |" in text
    assert (tmp_path / "results" / "report_new_among_new.svg").read_text().startswith("<?xml")
    cell = tmp_path / "results" / "small" / "cheap" / "sasrec-1"
    ranks = pd.read_parquet(cell.with_suffix(".parquet"))
    assert list(ranks.columns) == list(RANKS)
    result = json.loads(cell.with_suffix(".json").read_text())
    assert result["metrics"]["test/new_samples"] == (ranks["rank_among_new"] > 0).sum()
    assert str(tmp_path) not in result["store"]
    # Nothing is left to make, and the report is written all the same.
    with entry_run("study"):
        study(StudyConfig(**options, report=str(tmp_path / "again.md")))
    assert (tmp_path / "again.md").read_text().replace("again_", "report_") == text


def test_studies_of_other_cells_do_not_wait_for_each_other(place, small_files, tmp_path, capsys, monkeypatch):
    plan = tmp_path / "small.yaml"
    plan.write_text(PLAN.replace("INTERACTIONS", small_files["interactions"]).replace("ITEMS", small_files["items"]))
    options = {"plan": str(plan), "results": str(tmp_path / "results")}
    whole = study_module.make_cells

    def within(config, folder, missing, run_id):
        monkeypatch.setattr(study_module, "make_cells", whole)
        study(StudyConfig(**options, cells="small/ids/sasrec-2"))
        whole(config, folder, missing, run_id)

    monkeypatch.setattr(study_module, "make_cells", within)
    with entry_run("study"):
        study(StudyConfig(**options, cells="small/ids/sasrec-1"))
    assert "waiting for another process" not in capsys.readouterr().out
    assert "2 finished cells of 6" in (tmp_path / "results" / "report.md").read_text()


@pytest.mark.slow
def test_two_processes_make_the_cells_in_runs_of_the_study(place, small_files, tmp_path, capfd):
    plan = tmp_path / "small.yaml"
    plan.write_text(PLAN.replace("INTERACTIONS", small_files["interactions"]).replace("ITEMS", small_files["items"]))
    with entry_run("study"):
        run = study(StudyConfig(plan=str(plan), results=str(tmp_path / "two"), jobs=2))
    said = capfd.readouterr().out
    for seed in (1, 2):
        assert f"[study, seed {seed} 1/2] small/ids/sasrec-{seed}" in said
    nested = mlflow.search_runs(
        filter_string=f"tags.`mlflow.parentRunId` = '{run.run_id}'", search_all_experiments=True, output_format="list"
    )
    assert [one.info.status for one in nested] == ["FINISHED"] * 6
    # Where a worker was killed amid its part, what it had made is not made again.
    gone = tmp_path / "two" / "small" / "cheap" / "sasrec-2.json"
    kept = gone.read_text()
    gone.unlink()
    with entry_run("study"):
        study(StudyConfig(plan=str(plan), results=str(tmp_path / "two"), jobs=2))
    assert json.loads(gone.read_text())["run_id"] == json.loads(kept)["run_id"]


def test_a_row_that_cannot_be_is_refused_before_any_cell(place, tmp_path):
    plan = tmp_path / "bad.yaml"
    plan.write_text(
        "data: {small: {dataset: ml-100k}}\nstudents: {s: {student: sasrec}}\nseeds: [1]\n"
        "rows: {bad: {step: backbone, options: {hidden_size: 7, heads: 2, ema_decay: 0.5}}}\n"
    )
    with pytest.raises(InputError, match="row bad: heads"), entry_run("study"):
        study(StudyConfig(plan=str(plan), results=str(tmp_path / "results")))
    assert not (tmp_path / "results").exists()


def test_without_an_llm_nothing_is_said_of_one(monkeypatch):
    ranks = pd.DataFrame({"user": list("abcdefghijkl"), "item": list("mnopqrstuvwx"), "rank": 1, "item_count": 20})
    worse = ranks.assign(rank=30)
    tables = {"ids": worse, "distilled": ranks}
    monkeypatch.setattr(pd, "read_parquet", lambda path: tables[path.parent.name])
    monkeypatch.setattr(worth_module, "options_of_teacher", lambda run: run.options)
    monkeypatch.setattr(worth_module, "price_of", lambda rows: None)

    def said(kind):
        rows = {name: SimpleNamespace(artifact=lambda _, name=name: Path(name)) for name in tables}
        options = TeacherConfig(teacher=kind, endpoint_model="m" if kind == "endpoint" else "")
        rows["teacher"] = SimpleNamespace(options=options)
        return worth_module.answer([rows], MainConfig(cheap_views=""), 0.01)[0]

    assert "The LLM is worth it for items with clicks" in said("ranking")
    assert "The LLM is worth it for items with clicks" in said("endpoint")
    assert "This teacher has no LLM, so that nothing is said of one" in said("backbone")
