"""Colours of all reports, light and dark, and how their plots are drawn in them.

The hues are those of Okabe and Ito (2008), which readers who see no red or green tell apart, made darker
where they would be faint on white; `tests/report/test_theme.py` measures contrast and distances. No colour
alone has a meaning.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib

#: Width of a plot in inches, on a wide page and on a phone's.
WIDE, NARROW = 6.2, 3.8


@dataclass(frozen=True)
class Theme:
    """Colours of a page and its plots, as ``#RRGGBB``.

    Attributes:
        ink, quiet: text, and text that matters less.
        page, card: what is behind everything, and behind a section and its plots.
        line, grid: of axes and borders, and of grids.
        better, worse, unclear: verdicts.
        series: of up to four recommenders in one plot.
        behind: what a plot is drawn on; ``none`` shows the page.
    """

    ink: str
    quiet: str
    page: str
    card: str
    line: str
    grid: str
    better: str
    worse: str
    unclear: str
    series: tuple[str, str, str, str]
    behind: str = "none"

    def verdict(self, verdict: str) -> str:
        """The colour of 'better', 'worse', or anything else: unclear."""
        return {"better": self.better, "worse": self.worse}.get(verdict, self.unclear)

    @property
    def style(self) -> dict[Any, Any]:
        """Settings of matplotlib."""
        return {
            "svg.fonttype": "none",
            "svg.hashsalt": "recdistill",
            "text.parse_math": False,  # a name may hold a dollar sign
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": self.ink,
            "figure.facecolor": self.behind,
            "savefig.facecolor": self.behind,
            "axes.facecolor": "none",
            "axes.edgecolor": self.line,
            "axes.labelcolor": self.quiet,
            "axes.titlecolor": self.ink,
            "grid.color": self.grid,
            "xtick.color": self.quiet,
            "ytick.color": self.ink,
        }

    @property
    def css(self) -> str:
        """Its colours as variables of a style sheet."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("series", "behind")}
        return " ".join(f"--{name}: {colour};" for name, colour in named.items())


LIGHT = Theme(
    ink="#1F2328",
    quiet="#545C67",
    page="#F6F7F9",
    card="#FFFFFF",
    line="#C9CDD3",
    grid="#ECEEF1",
    better="#0067A3",
    worse="#B84A00",
    unclear="#6F7680",
    series=("#0072B2", "#C48700", "#009E73", "#A36186"),
)
DARK = Theme(
    ink="#E8EAED",
    quiet="#B0B7C0",
    page="#15181C",
    card="#1D2126",
    line="#454C55",
    grid="#2C3239",
    better="#64BBEE",
    worse="#F08A45",
    unclear="#9AA2AC",
    series=("#56B4E9", "#E69F00", "#009E73", "#CC79A7"),
)
#: For plots that stand alone, as in a notebook of any colour.
PAPER = replace(LIGHT, behind="#FFFFFF")
#: Another shape for each colour of a series.
MARKERS = ("o", "s", "^", "D")


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Draw in these colours."""
    with matplotlib.rc_context(theme.style):
        yield
