"""docs/RESULTS.md and docs/QUERIES.md are what the command writes from the cells that are kept."""

from pathlib import Path

import pytest

from recdistill.steps import study
from recdistill.steps.study import report_files
from recdistill.study.plan import read_plan
from recdistill.sweep.shipped import plan_path

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "page"), [("study", "RESULTS"), ("study_queries", "QUERIES")])
def test_the_page_is_written_from_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, page: str):
    # The drawings themselves are looked at in tests/report.
    monkeypatch.setattr(study, "study_figure", lambda *panels: "<svg/>")
    monkeypatch.setattr(study, "study_page", lambda report: "")
    plan = read_plan(plan_path(name), name)
    text, _ = report_files(plan, ROOT / "docs" / "results" / name, tmp_path / f"{page}.md")
    assert text == (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        path.name for path in (ROOT / "docs").glob(f"{page}*.svg")
    }
