"""Figures of small, degenerate and conditional studies."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from small_sweep import EPOCHS, TEXT, make_space, place_in, run

from recdistill.sweep.figures import figures_of, write_figures
from recdistill.sweep.space import Objective, Parameter, Space
from recdistill.sweep.study import open_study

FIGURES = ["history", "importances", "parallel_coordinates", "slices", "contour", "curves"]
SPACE = TEXT.replace("parameters:\n", "parameters:\n  ed_weight: {low: 0, high: 1}\n")


def drawn(folder: Path, text: str, total: int) -> list[str]:
    space = make_space(folder, text)
    opened = open_study(place_in(folder), space, 1, EPOCHS, create=True)
    if total:
        run(opened, space, total)
    names = write_figures(folder / "figures", opened.study, space)
    assert sorted(path.name for path in (folder / "figures").glob("*.png")) == sorted(f"{n}.png" for n in names)
    for name in names:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return names


@pytest.mark.slow
def test_all_figures_are_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path, SPACE, 8) == FIGURES


@pytest.mark.parametrize("total", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_few_trials_are_no_error(tmp_path: Path, total: int) -> None:
    names = drawn(tmp_path, SPACE, total)
    assert "history" in names


def test_no_trial_is_no_figure(tmp_path: Path) -> None:
    assert drawn(tmp_path, SPACE, 0) == []


def test_importances_are_those_of_the_spread_whichever_direction_is_better() -> None:
    """Of two objectives that are the negatives of each other: what explains one explains the other."""
    objectives = (Objective("val/ndcg_at_20", "maximize"), Objective("val/hr_at_20", "maximize"))
    names = ("lam", "alpha", "ed_weight")
    space = Space("space.yaml", tuple(Parameter(name, float, 0.0, 1.0) for name in names), objectives)
    study = optuna.create_study(directions=["maximize", "maximize"])
    drawn = np.random.default_rng(0).uniform(size=(40, 3))
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in names}
    for values in drawn:
        # The best values depend on alpha, the worst on lam.
        value = max(values[0], 0.9) + 2 * min(values[1], 0.1)
        params = dict(zip(names, values.tolist(), strict=True))
        found = optuna.create_trial(params=params, distributions=distributions, values=[value, -value])
        study.add_trial(found)
    one, other = (
        dict(zip(figure.page().data[0].y, figure.page().data[0].x, strict=True))
        for figure in figures_of(study, space)
        if figure.name.startswith("importances")
    )
    assert one == pytest.approx(other, abs=0.02)


@pytest.mark.slow
def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    text = TEXT.replace("objective: val/ndcg_at_20", "objectives: [val/ndcg_at_20, latency_ms]")
    names = drawn(tmp_path, text, 6)
    assert names[0] == "pareto"
    assert {"history", "history_latency_ms", "importances_latency_ms"} <= set(names)
