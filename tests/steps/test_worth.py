"""``worth`` and ``study`` on small data over the tiny llama: every row is made, and what is said is of the runs."""

import json

import mlflow
import pandas as pd
import pytest

from recdistill.config import StudyConfig, WorthConfig
from recdistill.errors import InputError
from recdistill.runs.step_runs import entry_run
from recdistill.steps.study import study
from recdistill.steps.worth import worth
from recdistill.study.cells import RANKS

SMALL = {
    "hidden_size": 16, "blocks": 1, "heads": 1, "epochs": 2, "token_budget": 1500, "tokens_per_batch": 300, "top_n": 12,
    "teacher_window": 10, "teacher_history": 4, "new_items": 0.2, "outputs_token_budget": 3000, "candidate_topk": 5,
}  # fmt: skip
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


def test_worth_has_every_row_and_a_sentence(place, small_files, tiny_llm_folder, capsys):
    options = {**small_files, **SMALL, "llm": str(tiny_llm_folder), "cheap_views": "tfidf"}
    with entry_run("worth"):
        run = worth(WorthConfig(**options))
    said = run.artifact("worth.md").read_text()
    assert said.startswith("**The LLM is ")
    assert "One seed" in said
    for row in ("ids + cheap text + frozen LLM", "ids + cheap text + teacher", "items with clicks: distilled"):
        assert row in said
    assert "4,500 LLM tokens" in said
    assert said in capsys.readouterr().out
    metrics = run.metrics()
    assert "worth/ids_cheap_text_teacher_over_ids_cheap_text_new_among_new/difference" in metrics
    assert "recdistill.distilled_run_id" in mlflow.get_run(run.run_id).data.tags


def test_a_study_makes_its_cells_goes_on_and_reports(place, small_files, tmp_path, capsys):
    plan = tmp_path / "small.yaml"
    plan.write_text(PLAN.replace("INTERACTIONS", small_files["interactions"]).replace("ITEMS", small_files["items"]))
    options = {"plan": str(plan), "results": str(tmp_path / "results")}
    with entry_run("study"):
        study(StudyConfig(**options, most_cells=3))
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
