"""docs/RESULTS.md is what the command writes from the cells that are kept."""

from pathlib import Path

import pytest

from recdistill.steps import study
from recdistill.steps.study import report_files
from recdistill.study.plan import read_plan
from recdistill.sweep.shipped import plan_path

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_is_written_from_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The drawings themselves are looked at in tests/report.
    monkeypatch.setattr(study, "study_figure", lambda *panels: "<svg/>")
    monkeypatch.setattr(study, "study_page", lambda report: "")
    plan = read_plan(plan_path("study"), "study")
    text, _ = report_files(plan, ROOT / "docs" / "results" / "study", tmp_path / "RESULTS.md")
    assert text == (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        path.name for path in (ROOT / "docs").glob("RESULTS*.svg")
    }
