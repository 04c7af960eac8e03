"""Pictures of a comparison as SVG: gains with their intervals, over all samples and by subgroup."""

import io
import textwrap
from collections.abc import Sequence
from typing import Literal, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recdistill.report.results import Results
from recdistill.report.theme import MARKERS, PAPER, WIDE, Theme, drawing

LABEL_LENGTH, NARROW_LABEL_LENGTH, NARROW_NAME_LENGTH = 38, 22, 32
#: Of figures that are drawn for a white page alone, PNG files.
STYLE, SERIES_COLOURS = PAPER.style, PAPER.series


def gains_plot(results: Results, groups: Sequence[int], theme: Theme = PAPER, width: float = WIDE) -> str:
    """SVG of the headline gains of some recommenders against their baselines, the best on top."""
    rows = [row for row in (results.row_of(index) for index in groups) if row is not None]
    with drawing(theme):
        figure, axes = canvas(len(rows), width)
        for place, row in enumerate(rows):
            interval_line(axes, row, place, theme.verdict(row.verdict), theme, weight=2.5)
        axes.set_yticks(range(len(rows)), [short(results.groups[row.group].label, width) for row in rows])
        finish(axes, f"gain in {results.metric} against the baseline, 95 % interval", theme, width)
        return svg(figure)


def subgroup_plot(results: Results, groups: Sequence[int], theme: Theme = PAPER, width: float = WIDE) -> str:
    """SVG of the headline gains by subgroup, a colour and a shape for each of up to four recommenders."""
    shown = [index for index in groups if results.row_of(index) is not None][: len(theme.series)]
    subgroups = list(dict.fromkeys((row.kind, row.subgroup) for row in results.slices))
    with drawing(theme):
        figure, axes = canvas(len(subgroups), width)
        for series, index in enumerate(shown):
            offset = (series - (len(shown) - 1) / 2) * 0.6 / max(len(shown), 2)
            colour, marker = theme.series[series], MARKERS[series]
            for row in results.slices:
                if row.group == index:
                    place = subgroups.index((row.kind, row.subgroup)) + offset
                    interval_line(axes, row, place, colour, theme, weight=1.8, marker=marker)
            axes.plot([], [], color=colour, marker=marker, label=short(results.groups[index].label))
        axes.set_yticks(range(len(subgroups)), [f"{kind}: {name}" for kind, name in subgroups])
        if shown:
            columns = 2 if width >= WIDE else 1
            axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=columns, frameon=False, fontsize=8)
        finish(axes, f"gain in {results.metric} against the baseline, 95 % interval", theme, width)
        return svg(figure)


def canvas(places: int, width: float, line: float = 0.32) -> tuple[Figure, Axes]:
    """A figure with room for so many lines, each ``line`` inches high."""
    figure = Figure(figsize=(width, 1.0 + line * max(places, 3)), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(max(places, 1) - 0.4, -0.6)
    return figure, axes


class Measured(Protocol):
    """A difference with its interval and verdict."""

    @property
    def difference(self) -> float:
        """Its value."""

    @property
    def low(self) -> float:
        """Lower bound."""

    @property
    def high(self) -> float:
        """Upper bound."""

    @property
    def verdict(self) -> str:
        """'better', 'worse', or another word."""


def interval_line(
    axes: Axes, row: Measured, place: float, colour: str, theme: Theme, *, weight: float, marker: str = "o"
) -> None:
    """A difference with its interval; hollow where it may be luck."""
    axes.plot([row.low, row.high], [place, place], color=colour, linewidth=weight, solid_capstyle="round")
    inside = colour if row.verdict in ("better", "worse") else theme.card
    axes.plot(row.difference, place, marker=marker, markersize=6, color=colour, markerfacecolor=inside)


def finish(axes: Axes, name: str, theme: Theme, width: float) -> None:
    """The line of no difference, the grid, the axis's name."""
    axes.axvline(0, color=theme.ink, linewidth=1, zorder=0)
    bare(axes, "x", name if width >= WIDE else textwrap.fill(name, NARROW_NAME_LENGTH))


def bare(axes: Axes, grid: Literal["x", "y"], name: str) -> None:
    """Axes without a frame, with a grid along one of them and the name of the lower one."""
    axes.grid(axis=grid, zorder=-1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel(name)
    figure = axes.get_figure(root=True)
    # On a phone's width more numbers run into each other.
    axes.locator_params(axis=grid, nbins=6 if figure is None or figure.get_figwidth() >= WIDE else 4)


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same numbers."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def short(label: str, width: float = WIDE) -> str:
    """A label cut to what an axis of a plot so many inches wide has room for."""
    most = LABEL_LENGTH if width >= WIDE else NARROW_LABEL_LENGTH
    return label if len(label) <= most else label[: most - 1] + "…"
