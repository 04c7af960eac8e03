"""Figures of a sweep: history, importances, parallel coordinates, slices, contours, Pareto front.

Optuna draws all of them twice: with matplotlib for the PNG files, with plotly for the page (`recdistill.sweep.page`).
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from optuna import visualization as interactive
from optuna.importance import FanovaImportanceEvaluator
from optuna.study import Study
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

from recdistill.sweep.space import Space

CONTOUR = ("lam", "ed_weight")
INCHES, DOTS = (9.0, 5.5), 100
INCHES_EACH = {"parallel": 1.6, "slices": 2.0}


@dataclass(frozen=True)
class Figure:
    """A figure's name, title, the two functions that draw it, and the position of the objective that it is about."""

    name: str
    title: str
    png: Callable[[], Any]
    page: Callable[[], Any]
    objective: int = 0


def write_figures(folder: Path, study: Study, space: Space) -> list[str]:
    """Write ``NAME.png`` of each figure. Returns their names.

    A figure that the trials are too few or too equal for is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.use("agg")
    names: list[str] = []
    for figure in figures_of(study, space):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                draw_png(figure, folder / f"{figure.name}.png")
            except (ValueError, RuntimeError, ZeroDivisionError):
                continue
        names.append(figure.name)
    return names


def draw_png(figure: Figure, path: Path) -> None:
    """Draw with matplotlib and save; figures with an axis an option are as wide as they need."""
    try:
        axes = figure.png()
        whole = axes.figure if hasattr(axes, "figure") else axes.flat[0].figure
        width = INCHES_EACH.get(figure.name.split("_")[0], 0.0) * len(whole.axes)
        whole.set_size_inches(max(INCHES[0], width), INCHES[1])
        for part in whole.axes:
            if "parallel" in figure.name:
                part.grid(False)
            if "slices" in figure.name:
                part.tick_params(axis="x", which="both", labelrotation=90, labelsize=8)
                part.xaxis.label.set_size(9)
        whole.savefig(path, dpi=DOTS, bbox_inches="tight")
    finally:
        plt.close("all")


def figures_of(study: Study, space: Space) -> Iterator[Figure]:
    """The figures of a study."""
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        return
    names = [parameter.name for parameter in space.parameters]
    single = len(space.objectives) == 1
    if not single:
        metrics = [objective.metric for objective in space.objectives]
        yield Figure(
            "pareto",
            "Pareto front",
            lambda: drawn.plot_pareto_front(study, target_names=metrics),
            lambda: interactive.plot_pareto_front(study, target_names=metrics),
        )
    for position, objective in enumerate(space.objectives):
        chosen: dict[str, Any] = {"target_name": objective.metric}
        if not single:
            chosen["target"] = value_at(position)
        # Where there are several objectives, the figures of each but the first are named after it.
        end = "" if not position else f"_{objective.metric.replace('/', '_')}"
        for figure in objective_figures(study, names, chosen, objective.metric, end):
            yield replace(figure, objective=position)
    if single:
        yield Figure(
            "curves",
            "Curves of the trials, pruned ones end early",
            lambda: drawn.plot_intermediate_values(study),
            lambda: interactive.plot_intermediate_values(study),
        )


def objective_figures(
    study: Study, names: list[str], chosen: dict[str, Any], metric: str, end: str
) -> Iterator[Figure]:
    """The figures of one objective."""

    def both(name: str, title: str, function: str, **arguments: Any) -> Figure:
        arguments |= chosen
        return Figure(
            name + end,
            title,
            lambda: getattr(drawn, function)(study, **arguments),
            lambda: getattr(interactive, function)(study, **arguments),
        )

    yield both("history", f"{metric} of each trial", "plot_optimization_history")
    # Optuna's default, PED-ANOVA, asks what reaches the lowest values of a target.
    fanova = FanovaImportanceEvaluator(seed=0)
    yield both("importances", f"How much each option matters for {metric}", "plot_param_importances", evaluator=fanova)
    yield both("parallel_coordinates", f"Trials across their options, by {metric}", "plot_parallel_coordinate")
    yield both("slices", f"{metric} along each option", "plot_slice")
    if set(CONTOUR) <= set(names):
        yield both("contour", f"{metric} over {' and '.join(CONTOUR)}", "plot_contour", params=list(CONTOUR))


def value_at(position: int) -> Callable[[Any], float]:
    """A trial's value of one objective."""

    def value(trial: Any) -> float:
        return float(trial.values[position])

    return value
