"""A picture of `evaluation.slice_table`: hit ratio by length of the history and by popularity of the next item."""

import io
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recdistill.report.document import Draw
from recdistill.report.plots import STYLE, short, svg
from recdistill.report.theme import LIGHT, WIDE, Theme, drawing

PANELS = {"history": "length of the history", "popularity": "popularity of the next item: times in training"}
WIDTH, LEAST_WIDTH, LEAST_HEIGHT, DOTS = 0.8, 4.6, 0.01, 110
FEWEST = 20


def slice_figure(tables: Mapping[str, pd.DataFrame], title: str) -> bytes:
    """PNG with a bar for each recommender and group, and its 95 % interval where the group has 20 samples.

    Args:
        tables: of one to four recommenders, by name, all of the same samples.
        title: what stands above.
    """
    groups = int(next(iter(tables.values()))["kind"].isin(PANELS).sum())
    with matplotlib.rc_context(STYLE):
        figure = slices(tables, LIGHT, max(LEAST_WIDTH, 1.2 + 1.05 * groups))
        figure.suptitle(title, fontsize=10, color=LIGHT.ink, x=0.01, ha="left")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DOTS, metadata={"Software": None})
    return written.getvalue()


def slice_drawing(tables: Mapping[str, pd.DataFrame]) -> Draw:
    """The same for a report; on a narrow page the panels stand one above the other."""

    def draw(theme: Theme, width: float) -> str:
        with drawing(theme):
            return svg(slices(tables, theme, 1.35 * width if width >= WIDE else width, stacked=width < WIDE))

    return draw


def slices_in_words(tables: Mapping[str, pd.DataFrame]) -> str:
    """The alternative text: every value."""
    metric = metric_of(tables)
    said = []
    for name, rows in tables.items():
        shown = rows[rows["kind"].isin(PANELS)]
        parts = zip(shown["kind"], shown["subgroup"], shown[metric], strict=True)
        said.append(f"{name}: " + ", ".join(f"{kind} {subgroup} {value:.3f}" for kind, subgroup, value in parts))
    return f"{metric_name(metric)} by length of the history and popularity of the next item. " + "; ".join(said)


def metric_of(tables: Mapping[str, pd.DataFrame]) -> str:
    """The column of the hit ratio."""
    return next(name for name in next(iter(tables.values())).columns if name.startswith("hr_at_"))


def metric_name(column: str) -> str:
    """``HR@10``."""
    return column.upper().replace("_AT_", "@")


def slices(tables: Mapping[str, pd.DataFrame], theme: Theme, width: float, stacked: bool = False) -> Figure:
    """The figure, so many inches wide, its panels side by side or ``stacked``."""
    first = next(iter(tables.values()))
    metric = metric_of(tables)
    counts = [int((first["kind"] == kind).sum()) for kind in PANELS]
    most = max(float(reach_of(table, metric).max()) for table in tables.values())
    figure = Figure(figsize=(width, 6.4 if stacked else 3.4), layout="constrained")
    if stacked:
        panels = figure.subplots(len(PANELS), 1, sharey=True)
    else:
        panels = figure.subplots(1, len(PANELS), sharey=True, width_ratios=[max(count, 1) for count in counts])
    for axes, (kind, name) in zip(panels, PANELS.items(), strict=True):
        for place, table in enumerate(tables.values()):
            bars(axes, table[table["kind"] == kind], metric, place, len(tables), theme)
        finish(axes, first[first["kind"] == kind], name, 7 if stacked else 9)
    panels[0].set_ylabel(metric_name(metric))
    panels[0].set_ylim(0, 1.12 * max(most, LEAST_HEIGHT))
    if len(tables) == 1:
        whole = overall(first, metric)
        for axes in panels:
            axes.axhline(whole, color=theme.ink, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3)
        panels[1].text(1.0, whole, f" all {whole:.3f}", transform=panels[1].get_yaxis_transform(), va="center")
    else:
        handles = [panels[0].patches[place * counts[0]] for place in range(len(tables))]
        labels = [f"{short(label)} (all {overall(table, metric):.3f})" for label, table in tables.items()]
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if stacked else 2, frameon=False)
    return figure


def colours_of(theme: Theme, series: int) -> tuple[str, ...]:
    """So many colours; a single recommender has the first of the theme, and of several the last one."""
    blue, orange, green, _ = theme.series
    return (theme.unclear, orange, green, blue)[-series:]


def bars(axes: Axes, rows: pd.DataFrame, metric: str, place: int, series: int, theme: Theme) -> None:
    """The bars of one recommender, its place among ``series`` of them given."""
    width = WIDTH / series
    at = np.arange(len(rows)) + (place - (series - 1) / 2) * width
    values, tops = rows[metric].to_numpy(), reach_of(rows, metric)
    axes.bar(at, values, width * 0.92, color=colours_of(theme, series)[place], zorder=2)
    many = (rows["samples"] >= FEWEST).to_numpy()
    lengths = np.abs(np.stack([values - rows["low"].to_numpy(), tops - values]))[:, many]
    axes.errorbar(at[many], values[many], lengths, fmt="none", ecolor=theme.quiet, elinewidth=0.9, capsize=2, zorder=4)
    if series == 1:
        paper = {"facecolor": theme.card, "edgecolor": "none", "pad": 0.6}
        for x, value, top in zip(at, values, tops, strict=True):
            axes.annotate(
                f"{value:.3f}", (x, top), xytext=(0, 4), textcoords="offset points", ha="center", bbox=paper, zorder=5
            )


def reach_of(rows: pd.DataFrame, metric: str) -> np.ndarray:
    """Where each group's interval ends, or its bar, where so few samples have an interval that dwarfs all others."""
    return np.where(rows["samples"] >= FEWEST, rows["high"], rows[metric])


def finish(axes: Axes, rows: pd.DataFrame, name: str, size: float) -> None:
    """Names and sizes of the groups, the grid."""
    sizes = zip(rows["subgroup"], rows["samples"], strict=True)
    labels = [f"{group_name(text)}\n{samples:,} samples" for text, samples in sizes]
    axes.set_xticks(range(len(rows)), labels, fontsize=size)
    axes.set_xlabel(name)
    axes.grid(axis="y", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def group_name(text: str) -> str:
    """'head (168-583)' on two lines."""
    return text.removesuffix(")").replace(" (", "\n")


def overall(table: pd.DataFrame, metric: str) -> float:
    """The hit ratio over all samples."""
    return float(table.loc[table["kind"] == "all", metric].iloc[0])
