"""The report of a sweep as one HTML page that works offline: what won, whether it may be luck, and Optuna's figures.

Optuna draws with plotly. What is added are the band of the noise between seeds on the slices, the colours of the
reports' design, and each figure in words.
"""

import math
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.io
from optuna import visualization as interactive
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from plotly.colors import sample_colorscale
from scipy.stats import t as student_t

from recdistill.report.document import answer_section, chip, details, document, table
from recdistill.report.text import equals
from recdistill.sweep.best_trials import best_trials
from recdistill.sweep.figures import figures_of, value_at
from recdistill.sweep.final_comparison import Gain, Row, shown_metrics
from recdistill.sweep.space import Space

#: Options whose slices come first, if they are searched.
FIRST = ("lam", "alpha", "ed_weight", "temperature", "selection_policy")
#: Seen on white and on black: a trial, the best one, and from the worst to the best value.
TRIAL, BEST, SCALE = "#7F868F", "#1F8AC9", ((0.0, "#C98A1B"), (0.5, "#7F868F"), (1.0, "#1F8AC9"))
LEVEL, SIGNIFICANCE = 0.95, 0.05
HEIGHT, SLICE_HEIGHT = 380, 290
MOST_TICKS = 7
#: Trainings that a comparison of configurations needs.
LEAST_SEEDS = 2
#: Narrower than this, axes of options overlap; the figure is then scrolled.
PARALLEL_WIDTH = 620
CONFIG = {"displayModeBar": False, "responsive": True}
STYLE = """
.slices { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 14px;
  margin-bottom: 14px; }
.slices section { margin: 0; }
.js-plotly-plot text { fill: var(--ink) !important; text-shadow: none !important; }
.js-plotly-plot .gridlayer path, .js-plotly-plot .zerolinelayer path { stroke: var(--grid) !important; }
.js-plotly-plot .hovertext path { fill: var(--card) !important; stroke: var(--line) !important; }
"""


# A figure is drawn while the page is read, before its section has its width.
SCRIPT = """
const fit = () => document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.Plots.resize(plot));
addEventListener("load", fit);
"""


@dataclass(frozen=True)
class Noise:
    """What another seed changes of an objective.

    Attributes:
        deviation: standard deviation over seeds of one training, pooled over configurations.
        degrees: its degrees of freedom.
        seeds: seeds that a trial's value is a mean of.
    """

    deviation: float
    degrees: int
    seeds: int

    @property
    def width(self) -> float:
        """How much two trials of the same configuration may differ, in 95 of 100 pairs."""
        spread = self.deviation * math.sqrt(2 / self.seeds)
        return float(student_t.ppf((1 + LEVEL) / 2, self.degrees)) * spread


def noise_of(rows: Sequence[Row], space: Space) -> Noise | None:
    """The noise of the first objective by the final trainings; None where no configuration has two seeds."""
    groups = {tuple(row.run_ids): row.values(space.objectives[0].metric) for row in rows}
    known = [values for values in groups.values() if len(values) > 1 and all(map(math.isfinite, values))]
    degrees = sum(len(values) - 1 for values in known)
    if not degrees:
        return None
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in known)
    return Noise(math.sqrt(squares / degrees), degrees, space.seeds)


@dataclass(frozen=True)
class Trials:
    """The complete trials of a study, by one of its objectives.

    Attributes:
        metric: the objective.
        sign: 1 where more is better, -1 where less is.
        complete: in order.
        best: of them, and of the Pareto front where there are several objectives.
        noise: between seeds, or None.
        position: of the objective.
    """

    metric: str
    sign: float
    complete: Sequence[FrozenTrial]
    best: FrozenTrial
    noise: Noise | None
    position: int = 0

    @classmethod
    def of(cls, study: Study, space: Space, noise: Noise | None, position: int = 0) -> "Trials":
        """From a study with a complete trial."""
        objective = space.objectives[position]
        sign = 1.0 if objective.direction == "maximize" else -1.0
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = best_trials(study, space, position)[0]
        return cls(objective.metric, sign, complete, best, noise, position)

    @property
    def top(self) -> float:
        """The best value."""
        return float(self.best.values[self.position])

    @property
    def edge(self) -> float:
        """The value from which on seeds alone may explain the distance to the best one."""
        return self.top - self.sign * (self.noise.width if self.noise is not None else 0.0)

    @property
    def within(self) -> list[FrozenTrial]:
        """Trials that the noise does not tell from the best one, which is among them."""
        edge = self.sign * self.edge
        return [trial for trial in self.complete if self.sign * trial.values[self.position] >= edge]


def sweep_page(
    study: Study, space: Space, rows: Sequence[Row], gained: Mapping[str, Gain], command: str, noise: Noise | None
) -> str:
    """The whole page.

    Args:
        study: with a complete trial.
        space: what it searched.
        rows: the final comparison, the best configuration first; none where no final seeds were asked for.
        gained: the best one's gain over the others, by name.
        command: trains the best configuration.
        noise: of the first objective between seeds, if it is known.
    """
    trials = Trials.of(study, space, noise)
    searched = [parameter.name for parameter in space.parameters]
    ordered = [name for name in FIRST if name in searched] + [name for name in searched if name not in FIRST]
    drawn = Drawing()
    parts = [answer_section(sentences(trials, rows, gained), verdict_of(gained, seeds_of(rows)))]
    parts += [f'<div class="slices">{"".join(slices(drawn, study, trials, ordered))}</div>']
    if rows:
        parts += [f"<section><h2>Trained again with new seeds</h2>{finals_table(rows, space, gained)}</section>"]
    parts += list(figures(drawn, study, space, trials))
    parts += [
        details("The best configuration as a command", f"<pre><code>{escape(command)}</code></pre>", is_open=True),
        details("How to read this", f"<p>{escape(how_to_read(trials))}</p>", is_open=True),
    ]
    return document(f"Sweep {study.study_name}", parts, STYLE, SCRIPT)


class Drawing:
    """Figures of one page: the first one brings plotly along (4.5 MB), for a page must work without a network."""

    def __init__(self) -> None:
        self.has_library = False

    def section(self, heading: str, words: str, figure: Any, height: int, least_width: int = 0) -> str:
        """A figure under its heading; ``words`` say what it shows."""
        figure.update_layout(
            title=None,
            template="none",
            height=height,
            autosize=True,
            margin={"l": 56, "r": 16, "t": 20, "b": 44},
            paper_bgcolor="rgba(0,0,0,0)",
            plot_bgcolor="rgba(0,0,0,0)",
            font={"family": "system-ui, sans-serif", "size": 13},
        )
        figure.update_xaxes(automargin=True)
        figure.update_yaxes(automargin=True)
        text = plotly.io.to_html(figure, include_plotlyjs=not self.has_library, full_html=False, config=CONFIG)
        self.has_library = True
        label = escape(words, quote=True)
        whole = f'<div role="img" aria-label="{label}"'
        if least_width:
            inner = f'{whole} style="min-width: {least_width}px">{text}</div>'
            return (
                f'<section><h2>{escape(heading)}</h2><div class="wide" role="region" tabindex="0" '
                f'aria-label="{escape(heading, quote=True)}">{inner}</div></section>'
            )
        return f"<section><h2>{escape(heading)}</h2>{whole}>{text}</div></section>"


def slices(drawn: Drawing, study: Study, trials: Trials, names: Sequence[str]) -> Iterator[str]:
    """The objective along each option that trials had, with the band of the noise."""
    for name in names:
        if not any(name in trial.params for trial in trials.complete):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure = interactive.plot_slice(study, params=[name], target=value_at(0), target_name=trials.metric)
        # Its colours are the trials' numbers; its places along the axis may be texts.
        numbers, places = list(figure.data[0].marker.color), list(figure.data[0].x)
        figure.update_traces(marker={"color": TRIAL, "size": 9, "showscale": False, "line": {"width": 0}})
        if trials.noise is not None:
            figure.add_hrect(y0=trials.edge, y1=trials.top, fillcolor=TRIAL, opacity=0.22, line_width=0, layer="below")
        plain_axes(figure, trials.metric)
        figure.add_hline(y=trials.top, line={"color": BEST, "width": 1, "dash": "dot"})
        if trials.best.number in numbers:
            marker = {"color": BEST, "size": 15, "symbol": "star"}
            at = {"x": [places[numbers.index(trials.best.number)]], "y": [trials.top]}
            figure.add_scatter(**at, mode="markers", marker=marker, name="best", showlegend=False)
        yield drawn.section(name, slice_in_words(trials, name), figure, SLICE_HEIGHT)


def plain_axes(figure: Any, metric: str) -> None:
    """Axes of a slice: choices without quotes, powers of ten in full, and no name that the heading tells."""
    figure.update_yaxes(title={"text": metric, "standoff": 6, "font": {"size": 12}})
    figure.update_xaxes(title=None)
    if figure.layout.xaxis.type == "category":
        choices = list(figure.layout.xaxis.categoryarray)
        figure.update_xaxes(tickmode="array", tickvals=choices, ticktext=[one.strip("'") for one in choices])
    if figure.layout.xaxis.type == "log":
        ticks = log_ticks([value for value in figure.data[0].x if value > 0])
        figure.update_xaxes(tickmode="array", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten among positive values, the powers alone where these are many.

    >>> log_ticks([0.22, 3.5])
    [0.5, 1.0, 2.0]
    """
    low, high = min(values, default=1.0), max(values, default=1.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks


def slice_in_words(trials: Trials, name: str) -> str:
    """Where the best trial is along an option, and which values noise does not tell from it."""
    best = f"{trials.metric} along {name}: best {trials.top:.4f} at {trials.best.params.get(name, 'another branch')}"
    if trials.noise is None:
        return best
    near = [trial.params[name] for trial in trials.within if name in trial.params]
    if not near:
        return best
    numbers = [value for value in near if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(near):
        shown = f"{min(numbers):.4g} to {max(numbers):.4g}"
    else:
        shown = ", ".join(sorted(set(map(str, near))))
    return f"{best}; {len(near)} trials within the noise between seeds, at {shown}"


def figures(drawn: Drawing, study: Study, space: Space, trials: Trials) -> Iterator[str]:
    """Optuna's other figures; those that the trials are too few or too equal for are left out."""
    for one in figures_of(study, space):
        if one.name.startswith("slices"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                figure = one.page()
            except (ValueError, RuntimeError, ZeroDivisionError):
                continue
        about = Trials.of(study, space, None, one.objective) if one.objective else trials
        is_parallel = one.name.startswith("parallel")
        if is_parallel:
            colour_lines(figure, about.sign)
        elif one.name.startswith("history"):
            figure.update_traces(marker={"color": TRIAL}, selector={"mode": "markers"})
            figure.update_traces(line={"color": BEST}, selector={"mode": "lines"})
        elif one.name.startswith("importances"):
            figure.update_traces(marker={"color": BEST})
        figure.update_layout(showlegend=False)
        words = figure_in_words(one.name, one.title, figure, about)
        yield drawn.section(one.title, words, figure, HEIGHT, PARALLEL_WIDTH if is_parallel else 0)


def colour_lines(figure: Any, sign: float) -> None:
    """Colour the trials of Optuna's parallel coordinates from the worst to the best.

    A trial is a line whose first point carries the objective's value as text; one trace without points has the scale.
    """
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.customdata is not None]
    values = [sign * float(trace.customdata[0][1]) for trace in lines]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = [list(stop) for stop in SCALE]
    for trace, value in zip(lines, values, strict=True):
        trace.line = {"color": sample_colorscale(scale, [(value - low) / (high - low or 1.0)])[0], "width": 1.8}
        trace.opacity = 0.85
    figure.update_traces(marker={"colorscale": scale, "reversescale": sign < 0}, selector={"mode": "markers"})


def figure_in_words(name: str, title: str, figure: Any, trials: Trials) -> str:
    """What a figure shows: of importances every value, of the others their title and the best trial."""
    if name.startswith("importances"):
        pairs = zip(figure.data[0].y, figure.data[0].x, strict=True)
        return f"{title}: " + ", ".join(f"{option} {share:.2f}" for option, share in reversed(list(pairs)))
    return f"{title}: {len(trials.complete)} complete trials, the best is number {trials.best.number}, {trials.top:.4f}"


def sentences(trials: Trials, rows: Sequence[Row], gained: Mapping[str, Gain]) -> list[str]:
    """The answer: what the best one is worth on test, then what the trials say."""
    chosen = ", ".join(f"{name} {short(value)}" for name, value in trials.best.params.items())
    found = (
        f"Best of {len(trials.complete)} complete trials: number {trials.best.number}, "
        f"{trials.metric} {trials.top:.4f}, with {chosen}."
    )
    said = [gain_sentence(name, gain, seeds_of(rows)) for name, gain in gained.items()]
    said.append(found) if said else said.insert(0, found)
    if trials.noise is None:
        said.append("How much of it is luck is not known: no configuration was trained with two seeds (final_seeds).")
    else:
        said.append(near_sentence(len(trials.within) - 1, len(trials.complete) - 1, trials.noise))
    return said


def near_sentence(near: int, others: int, noise: Noise) -> str:
    """How many of the other trials the noise does not tell from the best one."""
    if not near:
        return f"No other trial lies within the noise between seeds ({noise.width:.4f}) of the best one."
    lie = "lies" if near == 1 else "lie"
    return (
        f"{near} of the {others} other trials {lie} within the noise between seeds ({noise.width:.4f}) of the best "
        "one: this sweep does not tell them apart."
    )


def seeds_of(rows: Sequence[Row]) -> int:
    """Trainings of each configuration of the final comparison."""
    return min((len(row.results) for row in rows), default=0)


def gain_sentence(name: str, gain: Gain, seeds: int) -> str:
    """``Trained with new seeds, the best is 0.0041 above default on test, which may be luck (…, p = 0.210).``"""
    if gain.same:
        return f"The best configuration is the {name} one."
    side = "above" if gain.difference >= 0 else "below"
    much, interval = f"{abs(gain.difference):.4f}", f"95 % interval {gain.low:+.4f} to {gain.high:+.4f}"
    if seeds < LEAST_SEEDS:
        return (
            f"Trained once each, with a new seed, the best one is {much} {side} the {name} one on test ({interval} "
            "over users), which does not tell the configuration from the seed."
        )
    luck = "which is not luck" if gain.p_value < SIGNIFICANCE else "which may be luck"
    return (
        f"Trained with new seeds, the best one is {much} {side} the {name} one on test, {luck} ({interval}, "
        f"p {equals(gain.p_value)})."
    )


def short(value: Any) -> str:
    """A value with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def verdict_of(gained: Mapping[str, Gain], seeds: int) -> str:
    """Of the first gain: 'better', 'worse' or 'unclear', as it is of one training each."""
    first = next(iter(gained.values()), None)
    return "unclear" if first is None or seeds < LEAST_SEEDS else verdict(first)


def verdict(gain: Gain) -> str:
    """'better', 'worse' or 'unclear'."""
    if gain.p_value >= SIGNIFICANCE:
        return "unclear"
    return "better" if gain.difference > 0 else "worse"


def finals_table(rows: Sequence[Row], space: Space, gained: Mapping[str, Gain]) -> str:
    """The final comparison, a line a configuration."""
    metrics = shown_metrics(space)
    lines = []
    for row in rows:
        cells = [escape(row.name), *(row.summary(metric) for metric in metrics), "", "", ""]
        if row.name in gained:
            gain = gained[row.name]
            interval = f"{gain.low:+.4f} to {gain.high:+.4f}"
            said = "one training each" if seeds_of(rows) < LEAST_SEEDS else chip(verdict(gain))
            cells[-3:] = ["", "", "the same"] if gain.same else [f"{gain.difference:+.4f}", interval, said]
        lines.append(cells)
    columns = ("configuration", *metrics, "best's gain", "95 % interval", "")
    return table(columns, lines, range(1, len(columns) - 1), "final comparison")


def how_to_read(trials: Trials) -> str:
    """What band, star and gains are."""
    band = (
        "The grey band on each slice is as wide as two trainings of the same options with two seeds differ in 95 of "
        f"100 pairs ({trials.noise.width:.4f}, by the final trainings, {trials.noise.degrees} degrees of freedom): "
        "trials in it may be as good as the best one, the star. "
        if trials.noise is not None
        else "The star is the best trial. "
    )
    return (
        f"{band}Trials are judged by validation; the final comparison is on test samples and new seeds, by the paired "
        "permutation test of compare. Importances (fANOVA) say how much of the spread of all trials an option "
        "explains, and nothing of the direction; they leave out options that only some trials had."
    )
