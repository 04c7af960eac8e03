"""A picture of a study: one metric of every row, a panel a data set and student, seeds as dots."""

import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from recdistill.report.plots import bare, short, svg
from recdistill.report.theme import PAPER, WIDE, Theme, drawing

#: By panel, then by row, the values of its seeds.
Panels = Mapping[str, Mapping[str, Sequence[float]]]
PANEL_WIDTH = 4.2


def study_figure(
    panels: Panels, axis: str, chance: Mapping[str, float], theme: Theme = PAPER, width: float = WIDE
) -> str:
    """SVG text.

    Args:
        panels: values; a row without values is left out of its panel.
        axis: name of the metric.
        chance: a line in each panel that has one.
        theme: its colours.
        width: inches; narrower than `WIDE`, panels stand one above the other, else two by two.
    """
    across = 1 if width < WIDE or len(panels) < 2 else 2
    down = max(1, math.ceil(len(panels) / across))
    filled = {title: {name: values for name, values in rows.items() if values} for title, rows in panels.items()}
    counts = [len(rows) for rows in filled.values()] or [1]
    # Side by side, a row of one panel is as high as one of the other.
    most = [max(1, *counts[first : first + across]) for first in range(0, len(counts), across)]
    heights = [1.2 + 0.28 * count for count in most]
    with drawing(theme):
        figure = Figure(figsize=(max(width, PANEL_WIDTH * across), sum(heights)), layout="constrained")
        grid = list(figure.subplots(down, across, squeeze=False, height_ratios=heights).flat)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for panel, (axes, (title, shown)) in enumerate(zip(grid, filled.items(), strict=False)):
            for place, values in enumerate(shown.values()):
                axes.plot(values, [place] * len(values), "o", markersize=4, color=theme.series[0], alpha=0.6)
                mean = statistics.fmean(values)
                axes.plot([mean, mean], [place - 0.3, place + 0.3], color=theme.ink, linewidth=2)
            if title in chance:
                axes.axvline(chance[title], color=theme.series[1], linestyle="--", linewidth=1, label="chance")
                axes.legend(loc="best", frameon=False, fontsize=8)
            axes.set_yticks(range(len(shown)), [short(name, width) for name in shown])
            axes.set_ylim(most[panel // across] - 0.4, -0.6)
            axes.set_title(title, fontsize=9, loc="left")
            bare(axes, "x", axis)
        return svg(figure)


def study_in_words(panels: Panels, axis: str) -> str:
    """The alternative text: the mean of every row."""
    said = []
    for title, rows in panels.items():
        means = ", ".join(f"{name} {statistics.fmean(values):.4f}" for name, values in rows.items() if values)
        said.append(f"{title}: {means}")
    return f"{axis}, means over seeds. " + "; ".join(said)
