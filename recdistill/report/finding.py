"""Findings: differences between two recommenders with their intervals, as a plot and in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recdistill.report.document import Draw
from recdistill.report.plots import canvas, finish, interval_line, short, svg
from recdistill.report.theme import WIDE, Theme, drawing

LINE, NARROW_LINE = 0.44, 0.58  # inches of a finding's height


@dataclass(frozen=True)
class Finding:
    """A difference between two recommenders on some targets.

    Attributes:
        row, against: their names.
        target: what was to be found, in words.
        difference: with its 95 % interval ``low`` to ``high``.
        relative: the difference as a share of the value that it is held against; NaN where that is 0.
        verdict: 'better', 'worse', 'not below' or 'unclear'.
    """

    row: str
    against: str
    target: str
    difference: float
    low: float
    high: float
    relative: float
    verdict: str

    @property
    def words(self) -> str:
        """``distilled over ids, new items: +0.0021 (+2.1 %), -0.0010 to +0.0050, unclear``."""
        share = "" if math.isnan(self.relative) else f" ({100 * self.relative:+.1f} %)"
        bounds = "" if math.isnan(self.low) else f", {self.low:+.4f} to {self.high:+.4f}"
        return f"{self.row} over {self.against}, {self.target}: {self.difference:+.4f}{share}{bounds}, {self.verdict}"


def findings_figure(findings: Sequence[Finding], metric: str) -> Draw:
    """The plot of some findings, in their order: a filled dot is beyond luck, a hollow one is not."""

    def draw(theme: Theme, width: float) -> str:
        with drawing(theme):
            labels = [label(one, width) for one in findings]
            tallest = max((text.count("\n") for text in labels), default=0)
            figure, axes = canvas(len(findings), width, LINE if tallest < 2 else NARROW_LINE)
            for place, one in enumerate(findings):
                if math.isnan(one.low):
                    axes.plot(one.difference, place, marker="x", color=theme.verdict(one.verdict))
                else:
                    interval_line(axes, one, place, theme.verdict(one.verdict), theme, weight=2.5)
            axes.set_yticks(range(len(findings)), labels, fontsize=8)
            finish(axes, f"difference in {metric}, 95 % interval", theme, width)
            return svg(figure)

    return draw


def label(one: Finding, width: float) -> str:
    """What a finding is called beside its line: two lines of text, and where the plot is narrow or they long, three."""
    lines = [one.row, f"over {one.against}: {one.target}"]
    if width < WIDE or short(lines[1], width) != lines[1]:
        lines = [one.row, f"over {one.against}", one.target]
    return "\n".join(short(line, width) for line in lines)


def findings_in_words(findings: Sequence[Finding], metric: str) -> str:
    """The alternative text of the plot."""
    return f"Differences in {metric} with 95 % intervals: " + "; ".join(one.words for one in findings)
