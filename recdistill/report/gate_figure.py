"""A picture of the gate: mean mixing weights of LoRA experts by cluster of users."""

import io
import warnings

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from recdistill.report.plots import STYLE, short

# From orange (below a uniform gate) over white to violet (above it): told apart by readers who see no red or green.
COLOURS = "PuOr"
LEAST_SPREAD = 0.02
DOTS = 110


def gate_figure(clusters: pd.DataFrame, title: str) -> bytes:
    """PNG heat map of a table with a row a cluster.

    Args:
        clusters: columns ``cluster``, ``users``, ``titles`` (its typical ones, separated by semicolons) and the mean
            weights ``expert_0`` … ``expert_<K-1>``.
        title: what stands above.
    """
    experts = [name for name in clusters.columns if name.startswith("expert_")]
    weights = clusters[experts].to_numpy()
    uniform = 1 / len(experts)
    spread = max(LEAST_SPREAD, float(abs(weights - uniform).max()))
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Titles in a script that no font here has are boxes; gate/weights.csv has them as they are.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(4.4 + 0.62 * len(experts), 1.5 + 0.36 * len(clusters)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(
            weights, cmap=COLOURS, vmin=uniform - spread, vmax=uniform + spread, aspect="auto", interpolation="none"
        )
        for row, values in enumerate(weights):
            for column, value in enumerate(values):
                far = abs(value - uniform) > 0.6 * spread
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if far else "#1F2328")
        rows = zip(clusters["cluster"], clusters["users"], clusters["titles"], strict=True)
        labels = [short(f"{users:,} users: {titles.partition(';')[0]}") for _, users, titles in rows]
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xticks(range(len(experts)), [name.replace("_", " ") for name in experts])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.set_label(f"mean gate weight; white: {uniform:.3g}, uniform")
        bar.outline.set_visible(False)  # type: ignore[operator]
        figure.suptitle(title, fontsize=10, color="#1F2328", x=0.01, ha="left")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DOTS, metadata={"Software": None})
    return written.getvalue()
