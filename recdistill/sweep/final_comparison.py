"""The final comparison of a sweep: its best configuration trained again, and tested as the step ``compare`` tests.

The best configuration, the default one and the undistilled student are trained with the same new seeds. Their ranks on
the test samples are paired by user (`recdistill.evaluation.paired_tests`); the spread over the seeds widens the
interval and the p-value.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recdistill.evaluation.paired_tests import RESAMPLES, p_value_text
from recdistill.report.compared import Group
from recdistill.report.results import MetricName, compare_groups
from recdistill.runs.compared_runs import compared_runs
from recdistill.sweep.space import Space
from recdistill.sweep.trainings import Trained

#: Shown beside the objective.
SHOWN = ("test/hr_at_10", "test/ndcg_at_10", "test/hr_at_20", "test/ndcg_at_20")
#: The test metric of a sweep that chooses by times alone.
TESTED = "test/ndcg_at_20"


@dataclass(frozen=True)
class Row:
    """A configuration and its trainings, in the order of the seeds."""

    name: str
    results: Sequence[Trained]

    @property
    def run_ids(self) -> list[str]:
        """The runs of the trainings."""
        return [result.run_id for result in self.results]

    def values(self, metric: str) -> list[float]:
        """One number a seed."""
        return [result.metrics.get(metric, math.nan) for result in self.results]

    def mean(self, metric: str) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values(metric))

    def deviation(self, metric: str) -> float:
        """Sample standard deviation over the seeds; nan for one."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan

    def summary(self, metric: str) -> str:
        """Mean and deviation, as text."""
        mean, deviation = self.mean(metric), self.deviation(metric)
        if math.isnan(mean):
            return "-"
        return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"


@dataclass(frozen=True)
class Gain:
    """Gain of the best configuration over another.

    Attributes:
        difference: mean.
        low, high: of its 95 % interval.
        p_value: two-sided, after Holm's correction, as ``compare`` of the same runs has it.
        same: whether the best configuration is the other one.
    """

    difference: float
    low: float
    high: float
    p_value: float
    same: bool = False


def deciding_metric(space: Space) -> str:
    """The test metric that answers for the sweep's first validation metric; `TESTED` where it has none."""
    for objective in space.objectives:
        if objective.metric.startswith("val/"):
            return "test/" + objective.metric.removeprefix("val/")
    return TESTED


def shown_metrics(space: Space) -> list[str]:
    """The table's metrics."""
    own = [objective.metric for objective in space.objectives]
    return list(dict.fromkeys([*own, *SHOWN, deciding_metric(space)]))


def gains(rows: Sequence[Row], space: Space, seed: int) -> dict[str, Gain]:
    """Gain of the first configuration over each other one, by the ranks that their runs keep.

    Args:
        rows: the best configuration first.
        space: its objectives say the metric.
        seed: of the resampling.

    Raises InputError where a run keeps no ranks.
    """
    best, others = rows[0], rows[1:]
    # The default configuration may have been best: the same runs then.
    found = {row.name: Gain(0.0, 0.0, 0.0, 1.0, same=True) for row in others if row.run_ids == best.run_ids}
    tested = [best, *(row for row in others if row.name not in found)]
    if len(tested) == 1:
        return found
    run_ids = [run_id for row in tested for run_id in row.run_ids]
    compared = compared_runs(run_ids, "", run_ids[0], "test")
    known = {run.run_id: run for run in compared.runs}
    groups = [
        Group(row.name, tuple(known[run_id] for run_id in row.run_ids), baseline=None if row is best else 0)
        for row in tested
    ]
    metric = MetricName.read(deciding_metric(space))
    results = compare_groups(groups, compared.samples, metric, resamples=RESAMPLES, seed=seed)
    for place, row in enumerate(tested):
        against = results.row_of(place)
        if against is not None:
            # The comparison is of the other one against the best.
            found[row.name] = Gain(-against.difference, -against.high, -against.low, against.adjusted)
    return found


def table(rows: Sequence[Row], space: Space, gained: Mapping[str, Gain]) -> str:
    """Markdown: a line a configuration, mean ± deviation over the seeds, and the best one's gain over each."""
    metrics, tested = shown_metrics(space), deciding_metric(space)
    heads = ["configuration", *metrics, f"best's gain in {tested}", "95 % interval", "p"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row.name, *(row.summary(metric) for metric in metrics), "", "", ""]
        if row.name in gained:
            gain = gained[row.name]
            cells[-3:] = [f"{gain.difference:+.4f}", f"{gain.low:+.4f} … {gain.high:+.4f}", p_value_text(gain.p_value)]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = len(rows[0].results)
    spread = (
        f"Mean ± deviation over {seeds} seeds that no trial had"
        if seeds > 1
        else "One seed, so the test says nothing about the luck of a seed"
    )
    note = "gain, interval and p by the paired permutation test by user, as compare makes it"
    return "\n".join(lines) + f"\n\n{spread}; {note}; chosen by validation alone.\n"


def as_json(rows: Sequence[Row], space: Space, gained: Mapping[str, Gain]) -> str:
    """The table's numbers, all seeds."""
    found: dict[str, Any] = {"tested": deciding_metric(space), "configurations": {}}
    for row in rows:
        numbers: dict[str, Any] = {
            metric: {"mean": row.mean(metric), "deviation": row.deviation(metric), "seeds": row.values(metric)}
            for metric in shown_metrics(space)
        }
        if row.name in gained:
            numbers["best_against_it"] = vars(gained[row.name])
        found["configurations"][row.name] = numbers
    return json.dumps(without_nan(found), indent=1)


def summary(rows: Sequence[Row], space: Space) -> dict[str, float]:
    """Numbers for the sweep's run: ``best/test/ndcg_at_20`` and its like, means over the seeds."""
    return {
        f"{row.name}/{metric}": row.mean(metric)
        for row in rows
        for metric in shown_metrics(space)
        if math.isfinite(row.mean(metric))
    }


def without_nan(value: Any) -> Any:
    """``value`` with null for nan and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
