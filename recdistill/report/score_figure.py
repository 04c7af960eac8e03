"""A plot of one metric of each of several recommenders, as bars with their values."""

from collections.abc import Mapping

from recdistill.report.document import Draw
from recdistill.report.plots import bare, canvas, short, svg
from recdistill.report.theme import Theme, drawing


def score_figure(values: Mapping[str, float], metric: str, marked: str = "") -> Draw:
    """The plot of some values by recommender, in their order; the ``marked`` one has a colour of its own."""

    def draw(theme: Theme, width: float) -> str:
        with drawing(theme):
            figure, axes = canvas(len(values), width)
            for place, (name, value) in enumerate(values.items()):
                axes.barh(place, value, 0.62, color=theme.better if name == marked else theme.unclear)
                axes.annotate(f"{value:.4f}", (value, place), xytext=(3, 0), textcoords="offset points", va="center")
            axes.set_yticks(range(len(values)), [short(name, width) for name in values])
            axes.set_xlim(0, 1.16 * max([*values.values(), 1e-4]))
            bare(axes, "x", metric)
            return svg(figure)

    return draw


def scores_in_words(values: Mapping[str, float], metric: str) -> str:
    """The alternative text of the plot."""
    return f"{metric}: " + "; ".join(f"{name} {value:.4f}" for name, value in values.items())
