"""A picture of `evaluation.slice_table`: hit ratio by length of the history and by popularity of the next item."""

import io
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recdistill.report.plots import STYLE, short

# Told apart by readers who see no red or green (Okabe and Ito, 2008); a single recommender has the last.
COLOURS = ("#8A8F98", "#E69F00", "#009E73", "#0072B2")
PANELS = {"history": "length of the history", "popularity": "popularity of the next item: times in training"}
WIDTH, LEAST_WIDTH, LEAST_HEIGHT, INK, DOTS = 0.8, 4.6, 0.01, "#1F2328", 110
FEWEST = 20


def slice_figure(tables: Mapping[str, pd.DataFrame], title: str) -> bytes:
    """PNG with a bar for each recommender and group, and its 95 % interval where the group has 20 samples.

    Args:
        tables: of one to four recommenders, by name, all of the same samples.
        title: what stands above.
    """
    first = next(iter(tables.values()))
    metric = next(name for name in first.columns if name.startswith("hr_at_"))
    counts = [int((first["kind"] == kind).sum()) for kind in PANELS]
    most = max(float(reach_of(table, metric).max()) for table in tables.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(LEAST_WIDTH, 1.2 + 1.05 * sum(counts)), 3.4), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharey=True, width_ratios=[max(count, 1) for count in counts])
        for axes, (kind, name) in zip(panels, PANELS.items(), strict=True):
            for place, table in enumerate(tables.values()):
                bars(axes, table[table["kind"] == kind], metric, place, len(tables))
            finish(axes, first[first["kind"] == kind], name)
        panels[0].set_ylabel(metric.upper().replace("_AT_", "@"))
        panels[0].set_ylim(0, 1.12 * max(most, LEAST_HEIGHT))
        if len(tables) == 1:
            whole = overall(first, metric)
            for axes in panels:
                axes.axhline(whole, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3)
            panels[1].text(1.0, whole, f" all {whole:.3f}", transform=panels[1].get_yaxis_transform(), va="center")
        else:
            handles = [panels[0].patches[place * counts[0]] for place in range(len(tables))]
            labels = [f"{short(label)} (all {overall(table, metric):.3f})" for label, table in tables.items()]
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle(title, fontsize=10, color=INK, x=0.01, ha="left")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DOTS, metadata={"Software": None})
    return written.getvalue()


def bars(axes: Axes, rows: pd.DataFrame, metric: str, place: int, series: int) -> None:
    """The bars of one recommender, its place among ``series`` of them given."""
    width = WIDTH / series
    at = np.arange(len(rows)) + (place - (series - 1) / 2) * width
    values, tops = rows[metric].to_numpy(), reach_of(rows, metric)
    axes.bar(at, values, width * 0.92, color=COLOURS[place - series], zorder=2)
    many = (rows["samples"] >= FEWEST).to_numpy()
    lengths = np.abs(np.stack([values - rows["low"].to_numpy(), tops - values]))[:, many]
    axes.errorbar(at[many], values[many], lengths, fmt="none", ecolor="#5A626D", elinewidth=0.9, capsize=2, zorder=4)
    if series == 1:
        paper = {"facecolor": "w", "edgecolor": "none", "pad": 0.6}
        for x, value, top in zip(at, values, tops, strict=True):
            axes.annotate(
                f"{value:.3f}", (x, top), xytext=(0, 4), textcoords="offset points", ha="center", bbox=paper, zorder=5
            )


def reach_of(rows: pd.DataFrame, metric: str) -> np.ndarray:
    """Where each group's interval ends, or its bar, where so few samples have an interval that dwarfs all others."""
    return np.where(rows["samples"] >= FEWEST, rows["high"], rows[metric])


def finish(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    """Names and sizes of the groups, the grid."""
    sizes = zip(rows["subgroup"], rows["samples"], strict=True)
    labels = [f"{group_name(text)}\n{samples:,} samples" for text, samples in sizes]
    axes.set_xticks(range(len(rows)), labels)
    axes.set_xlabel(name)
    axes.grid(axis="y", color="#ECEEF1", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def group_name(text: str) -> str:
    """'head (168-583)' on two lines."""
    return text.removesuffix(")").replace(" (", "\n")


def overall(table: pd.DataFrame, metric: str) -> float:
    """The hit ratio over all samples."""
    return float(table.loc[table["kind"] == "all", metric].iloc[0])
