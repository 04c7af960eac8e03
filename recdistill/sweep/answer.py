"""What a sweep ends in: the best trials, and how sure it is that they are better.

The best configuration is trained again over several seeds beside the default one and the undistilled student. Runs of
the same seed are paired: they saw the same batches. The test is Student's paired t-test over the seeds.
"""

import csv
import io
import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from recdistill.config import Config
from recdistill.errors import InputError
from recdistill.sweep.space import Space, Value

#: Shown beside the objective.
SHOWN = ("test/hr_at_10", "test/ndcg_at_10", "test/hr_at_20", "test/ndcg_at_20")
#: Options that say where and whether to compute, not what.
NOT_PART = {"seed", "force", "device", "backbone_run_id", "teacher_run_id"}


@dataclass(frozen=True)
class Row:
    """A configuration's metrics, one mapping a seed, in the order of the seeds."""

    name: str
    results: Sequence[Mapping[str, float]]

    def values(self, metric: str) -> list[float]:
        """One number a seed."""
        return [result.get(metric, math.nan) for result in self.results]

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
class Paired:
    """A mean difference, its 95 % interval and its two-sided p-value; nan for fewer than two seeds."""

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def tested(self) -> bool:
        """Whether there were seeds enough."""
        return not math.isnan(self.p_value)


def best_trials(study: Study, space: Space) -> list[FrozenTrial]:
    """The best complete trial, or those of the Pareto front, best by the first objective first.

    Raises InputError where no trial is complete.
    """
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        raise InputError(f"study={study.study_name}: no trial is complete, so there is no best one; add trials")
    if len(space.objectives) == 1:
        return [study.best_trial]
    sign = -1.0 if space.objectives[0].direction == "maximize" else 1.0
    return sorted(study.best_trials, key=lambda trial: (sign * trial.values[0], trial.number))


def paired(better: Sequence[float], other: Sequence[float]) -> Paired:
    """Student's paired t-test of ``better - other`` over the seeds."""
    differences = [a - b for a, b in zip(better, other, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Paired(mean, math.nan, math.nan, math.nan)
    if len(set(differences)) == 1:
        return Paired(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    tested = stats.ttest_1samp(differences, 0.0)
    low, high = tested.confidence_interval(0.95)
    return Paired(mean, float(low), float(high), float(tested.pvalue))


def tested_metric(space: Space) -> str:
    """The test metric that answers for the sweep's first validation metric."""
    for objective in space.objectives:
        if objective.metric.startswith("val/"):
            return "test/" + objective.metric.removeprefix("val/")
    return "test/ndcg_at_20"


def shown_metrics(space: Space) -> list[str]:
    """The table's metrics."""
    own = [objective.metric for objective in space.objectives]
    return list(dict.fromkeys([*own, *SHOWN, tested_metric(space)]))


def table(rows: Sequence[Row], space: Space) -> str:
    """Markdown: a line a configuration, mean ± deviation over the seeds, and the best one's gain over each."""
    metrics, tested = shown_metrics(space), tested_metric(space)
    heads = ["configuration", *metrics, f"best's gain in {tested}", "95 % interval", "p"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row.name, *(row.summary(metric) for metric in metrics)]
        if row is rows[0]:
            cells += ["", "", ""]
        else:
            gain = paired(rows[0].values(tested), row.values(tested))
            cells += [f"{gain.difference:+.4f}"]
            cells += [f"{gain.low:+.4f} … {gain.high:+.4f}", f"{gain.p_value:.3f}"] if gain.tested else ["-", "-"]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = len(rows[0].results)
    note = f"Mean ± deviation over {seeds} seeds, paired t-test" if seeds > 1 else "One seed says nothing about luck"
    return "\n".join(lines) + f"\n\n{note}; chosen by validation alone.\n"


def as_json(rows: Sequence[Row], space: Space) -> str:
    """The table's numbers, all seeds."""
    tested = tested_metric(space)
    found: dict[str, Any] = {"tested": tested, "configurations": {}}
    for row in rows:
        found["configurations"][row.name] = {
            metric: {"mean": row.mean(metric), "deviation": row.deviation(metric), "seeds": row.values(metric)}
            for metric in shown_metrics(space)
        }
    for row in rows[1:]:
        found["configurations"][row.name]["best_against_it"] = vars(paired(rows[0].values(tested), row.values(tested)))
    return json.dumps(finite(found), indent=1)


def summary(rows: Sequence[Row], space: Space) -> dict[str, float]:
    """Numbers for the sweep's run: ``best/test/ndcg_at_20`` and its like, means over the seeds."""
    return {
        f"{row.name}/{metric}": row.mean(metric)
        for row in rows
        for metric in shown_metrics(space)
        if math.isfinite(row.mean(metric))
    }


def finite(value: Any) -> Any:
    """JSON has no nan: null."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def options_of(config: Config) -> dict[str, Value]:
    """The options that make a configuration what it is: those that differ from their defaults."""
    return {
        spec.name: getattr(config, spec.name)
        for spec in fields(config)
        if spec.name not in NOT_PART and getattr(config, spec.name) != spec.default
    }


def command(options: Mapping[str, Value]) -> str:
    """The command that trains a student with these options."""
    return " ".join(["mlflow run . -e distill --env-manager local", *(f"-P {n}={text(v)}" for n, v in options.items())])


def text(value: Value) -> str:
    """A value as an option: exact, and quoted where a shell would split it."""
    return shlex.quote(str(value).lower() if isinstance(value, bool) else str(value))


def as_yaml(options: Mapping[str, Value]) -> str:
    """The options, one a line."""
    return str(yaml.safe_dump(dict(options), sort_keys=False))


def front(trials: Sequence[FrozenTrial], space: Space) -> str:
    """CSV: a line a trial, its objectives and its values."""
    names = [parameter.name for parameter in space.parameters]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", *(objective.metric for objective in space.objectives), *names])
    for trial in trials:
        writer.writerow([trial.number, *(trial.values or []), *(trial.params.get(name, "") for name in names)])
    return file.getvalue()
