"""Pictures of a comparison as SVG: gains with their intervals, over all samples and by subgroup."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recdistill.report.results import Results, Row

# Told apart by readers who see no red or green (Okabe and Ito, 2008).
VERDICT_COLOURS = {"better": "#0072B2", "worse": "#D55E00", "unclear": "#8A8F98"}
SERIES_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
LABEL_LENGTH = 38
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.hashsalt": "recdistill",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": "#C9CDD3",
    "axes.labelcolor": "#444B55",
    "xtick.color": "#444B55",
    "ytick.color": "#1F2328",
}


def gains_plot(results: Results, groups: Sequence[int]) -> str:
    """SVG of the headline gains of some recommenders against their baselines, the best on top."""
    rows = [row for row in (results.row_of(index) for index in groups) if row is not None]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(len(rows))
        for place, row in enumerate(rows):
            interval_line(axes, row, place, VERDICT_COLOURS[row.verdict], weight=2.5)
        axes.set_yticks(range(len(rows)), [short(results.groups[row.group].label) for row in rows])
        finish(axes, results)
        return svg(figure)


def subgroup_plot(results: Results, groups: Sequence[int]) -> str:
    """SVG of the headline gains by subgroup, a colour for each of up to four recommenders."""
    shown = [index for index in groups if results.row_of(index) is not None][: len(SERIES_COLOURS)]
    subgroups = list(dict.fromkeys((row.kind, row.subgroup) for row in results.slices))
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(len(subgroups))
        for series, index in enumerate(shown):
            offset = (series - (len(shown) - 1) / 2) * 0.6 / max(len(shown), 2)
            for row in results.slices:
                if row.group == index:
                    place = subgroups.index((row.kind, row.subgroup)) + offset
                    interval_line(axes, row, place, SERIES_COLOURS[series], weight=1.8)
            axes.plot([], [], color=SERIES_COLOURS[series], marker="o", label=short(results.groups[index].label))
        axes.set_yticks(range(len(subgroups)), [f"{kind}: {name}" for kind, name in subgroups])
        if shown:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
        finish(axes, results)
        return svg(figure)


def canvas(places: int) -> tuple[Figure, Axes]:
    """A figure with room for so many lines."""
    figure = Figure(figsize=(6.2, 1.0 + 0.32 * max(places, 3)), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(max(places, 1) - 0.4, -0.6)
    return figure, axes


def interval_line(axes: Axes, row: Row, place: float, colour: str, weight: float) -> None:
    """A difference with its interval; hollow where it may be luck."""
    axes.plot([row.low, row.high], [place, place], color=colour, linewidth=weight, solid_capstyle="round")
    filled = row.verdict != "unclear"
    axes.plot(row.difference, place, marker="o", markersize=6, color=colour, markerfacecolor=colour if filled else "w")


def finish(axes: Axes, results: Results) -> None:
    """The line of no difference, the grid, the axis's name."""
    axes.axvline(0, color="#1F2328", linewidth=1, zorder=0)
    axes.grid(axis="x", color="#ECEEF1", zorder=-1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel(f"gain in {results.metric} against the baseline, 95 % interval")


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same numbers."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def short(label: str) -> str:
    """A label cut to what an axis has room for."""
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
