"""Figures of small, degenerate and conditional studies."""

import re
from pathlib import Path

import pytest
from small_sweep import EPOCHS, TEXT, make_space, place_in, run

from recdistill.sweep.figures import write_figures
from recdistill.sweep.study import open_study

FIGURES = ["history", "importances", "parallel_coordinates", "slices", "contour", "curves"]
SPACE = TEXT.replace("parameters:\n", "parameters:\n  ed_weight: {low: 0, high: 1}\n")


def drawn(folder: Path, text: str, total: int) -> tuple[list[str], str]:
    space = make_space(folder, text)
    opened = open_study(place_in(folder), space, 1, EPOCHS, create=True)
    if total:
        run(opened, space, total)
    names = write_figures(folder / "figures", opened.study, space)
    assert sorted(path.name for path in (folder / "figures").glob("*.png")) == sorted(f"{n}.png" for n in names)
    for name in names:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return names, (folder / "figures" / "sweep.html").read_text(encoding="utf-8")


def test_all_figures_are_drawn_on_one_page_that_works_offline(tmp_path: Path) -> None:
    names, page = drawn(tmp_path, SPACE, 8)
    assert names == FIGURES
    assert page.count("Plotly.newPlot(") == len(names)
    assert "plotly.js v" in page[:20_000]
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert 1e6 < len(page) < 8e6


@pytest.mark.parametrize("total", [1, 2])
def test_few_trials_are_no_error(tmp_path: Path, total: int) -> None:
    names, _ = drawn(tmp_path, SPACE, total)
    assert "history" in names


def test_no_trial_is_no_figure(tmp_path: Path) -> None:
    assert drawn(tmp_path, SPACE, 0)[0] == []


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    text = TEXT.replace("objective: val/ndcg_at_20", "objectives: [val/ndcg_at_20, latency_ms]")
    names, _ = drawn(tmp_path, text, 6)
    assert names[0] == "pareto"
    assert {"history", "history_latency_ms", "importances_latency_ms"} <= set(names)
