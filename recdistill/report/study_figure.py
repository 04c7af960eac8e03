"""A picture of a study: one metric of every row, a panel a data set and student, seeds as dots."""

import statistics
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from recdistill.report.plots import SERIES_COLOURS, STYLE, svg

#: By panel, then by row, the values of its seeds.
Panels = Mapping[str, Mapping[str, Sequence[float]]]


def study_figure(panels: Panels, axis: str, chance: Mapping[str, float]) -> str:
    """SVG text.

    Args:
        panels: values; a row without values is left out of its panel.
        axis: name of the metric.
        chance: a line in each panel that has one.
    """
    most = max((len(rows) for rows in panels.values()), default=1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.2, 4.2 * len(panels)), 1.2 + 0.28 * most), layout="constrained")
        grid = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for axes, (title, rows) in zip(grid, panels.items(), strict=False):
            shown = {name: values for name, values in rows.items() if values}
            for place, values in enumerate(shown.values()):
                axes.plot(values, [place] * len(values), "o", markersize=4, color=SERIES_COLOURS[0], alpha=0.45)
                mean = statistics.fmean(values)
                axes.plot([mean, mean], [place - 0.3, place + 0.3], color="#1F2328", linewidth=2)
            if title in chance:
                axes.axvline(chance[title], color=SERIES_COLOURS[1], linestyle="--", linewidth=1, label="chance")
                axes.legend(loc="lower right", frameon=False, fontsize=8)
            axes.set_yticks(range(len(shown)), list(shown))
            axes.set_ylim(max(1, len(shown)) - 0.4, -0.6)
            axes.set_xlabel(axis)
            axes.set_title(title, fontsize=9, loc="left")
            axes.grid(axis="x", color="#ECEEF1")
            axes.set_axisbelow(True)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(length=0)
        return svg(figure)
