"""A picture of what new items cost: warm targets' NDCG against new ones', and the point that was taken."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from recdistill.report.plots import SERIES_COLOURS, STYLE

DOTS = 110


def new_items_figure(
    curves: Mapping[str, Sequence[tuple[float, float]]], chosen: Mapping[str, int], title: str
) -> bytes:
    """PNG with a line a part.

    Args:
        curves: by part, points of (share of warm NDCG@20 that is lost, NDCG@20 of new targets).
        chosen: by part, the point that was taken.
        title: what stands above.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for colour, (part, points) in zip(SERIES_COLOURS, curves.items(), strict=False):
            lost, found = [100 * cost for cost, _ in points], [value for _, value in points]
            axes.plot(lost, found, color=colour, marker="o", markersize=3, label=part)
            axes.plot(lost[chosen[part]], found[chosen[part]], marker="o", markersize=9, color=colour)
        axes.set_xlabel("NDCG@20 of trained items' targets that is lost, %")
        axes.set_ylabel("NDCG@20 of new targets\nin the whole catalogue")
        axes.grid(color="#ECEEF1")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, title="large: the setting taken")
        figure.suptitle(title, fontsize=10, color="#1F2328", x=0.01, ha="left")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DOTS, metadata={"Software": None})
    return written.getvalue()
