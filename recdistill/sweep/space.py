"""What a sweep searches: parameters, objectives, sampler and pruner."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar

from optuna import Trial

from recdistill.config import DataConfig, DistillConfig
from recdistill.errors import InputError
from recdistill.evaluation.metrics import KS

SamplerName = Literal["tpe", "random", "qmc", "nsga2"]
PrunerName = Literal["none", "median", "hyperband"]
Direction = Literal["maximize", "minimize"]

#: What a trial logs that a sweep may choose by. Test metrics are recorded, never chosen by.
METRICS: dict[str, Direction] = {
    **{f"val/{name}_at_{k}": "maximize" for name in ("hr", "ndcg") for k in KS},
    "val/mrr": "maximize",
    "latency_ms": "minimize",
    "train_seconds": "minimize",
}
#: A sweep is over one data set, in one place, with the seed it is given.
FIXED_BY_THE_COMMAND = {spec.name for spec in fields(DataConfig)} | {
    "backbone_run_id",
    "teacher_run_id",
    "teacher_files",
}

Options = TypeVar("Options", bound=DistillConfig)
Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """An option that is searched: an interval (``low`` and ``high`` included) or ``choices``.

    Attributes:
        only: the option is searched where another has one of these values, ``(option, values)``.
        line: where the file has it.
    """

    name: str
    kind: type
    low: float | int | None = None
    high: float | int | None = None
    step: float | int | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    only: tuple[str, tuple[Value, ...]] | None = None
    line: int = 0

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the option is searched beside these values of the other options."""
        return self.only is None or values.get(self.only[0]) in self.only[1]

    def contains(self, value: Value) -> bool:
        """Whether a trial could have this value."""
        if self.choices:
            return value in self.choices
        if isinstance(value, str) or self.low is None or self.high is None:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9

    def suggest(self, trial: Trial) -> Value:
        """The trial's value."""
        if self.choices:
            chosen: Value = trial.suggest_categorical(self.name, self.choices)  # type: ignore[assignment]
            return chosen
        assert self.low is not None
        assert self.high is not None
        if self.kind is int:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def examples(self) -> list[Value]:
        """All choices, or both ends."""
        return list(self.choices) if self.choices else [end for end in (self.low, self.high) if end is not None]

    def nearest(self, value: Value) -> Value:
        """``value`` where a trial could have it, else the end of the interval on its side, or the first choice."""
        if self.contains(value):
            return value
        above = self.high is not None and not isinstance(value, str) and value > self.high
        return self.examples()[-1 if above else 0]


@dataclass(frozen=True)
class Objective:
    """A metric that trials are chosen by."""

    metric: str
    direction: Direction


@dataclass(frozen=True)
class Sampler:
    """How values are drawn; ``startup_trials`` random ones come first."""

    name: SamplerName = "tpe"
    startup_trials: int = 10


@dataclass(frozen=True)
class Pruner:
    """When a trial is given up.

    median: its best value so far is worse than the median of the others at the same epoch, after
    ``startup_trials`` and ``warmup_epochs``. hyperband: brackets of successive halving, from ``min_epochs`` on, one
    in ``reduction`` kept.
    """

    name: PrunerName = "none"
    startup_trials: int = 5
    warmup_epochs: int = 5
    min_epochs: int = 3
    reduction: int = 3


@dataclass(frozen=True)
class Space:
    """A search space, valid for the options it was read with.

    Attributes:
        path: the file, for messages.
        parameters: those searched, an option that another depends on before it.
        objectives: one, or several for a Pareto front.
        sampler, pruner: how.
        seeds: runs a trial; their mean counts.
        fixed: options that differ from their defaults in every trial.
        lines: where the file has each fixed option.
    """

    path: str
    parameters: tuple[Parameter, ...]
    objectives: tuple[Objective, ...]
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    seeds: int = 1
    fixed: Mapping[str, Value] | None = None
    lines: Mapping[str, int] | None = None

    def described(self) -> dict[str, Any]:
        """All that a study depends on, as JSON values: where the file lies and how it is laid out is not."""
        values = asdict(self)
        for name in ("path", "lines"):
            del values[name]
        for parameter in values["parameters"]:
            del parameter["line"]
            parameter["kind"] = parameter["kind"].__name__
        return values

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Values of the searched options that apply to this trial."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(values):
                values[parameter.name] = parameter.suggest(trial)
        return values

    def defaults(self, config: DistillConfig) -> dict[str, Value] | None:
        """The options of ``config`` as a trial; None where the space does not contain it."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            value = getattr(config, parameter.name)
            if parameter.applies(values):
                if not parameter.contains(value):
                    return None
                values[parameter.name] = value
        return values


def base_config(space: Space, config: Options) -> Options:
    """The options that all trials share: the command's, then the file's.

    What the command set (differently from its default) wins over the file's ``fixed``. Raises InputError, with the
    file's line, where it also sets a searched option, or where some combination of values is not valid.
    """
    given = {spec.name for spec in fields(config) if getattr(config, spec.name) != spec.default}
    for parameter in space.parameters:
        if parameter.name in given:
            raise InputError(
                f"{parameter.name}={getattr(config, parameter.name)}: is searched by {space.path}:{parameter.line}; "
                f"leave it out, or take it out of a copy of the file"
            )
    fixed: dict[str, Any] = {name: value for name, value in (space.fixed or {}).items() if name not in given}
    try:
        base = replace(config, **fixed)
    except InputError:
        # Where it is searched, an option need not fit what is fixed by its default.
        searched = {p.name: p.nearest(getattr(config, p.name)) for p in space.parameters if p.only is None}
        base = tried(space, config, fixed | searched)
    for values in combinations(space):
        tried(space, base, values)
    return base


def combinations(space: Space) -> Iterator[dict[str, Value]]:
    """For every two parameters (and those they depend on) all choices and ends, the other parameters at their first.

    A check of the options looks at two of them at most: what it could refuse in any trial, it refuses here.
    """
    for pair in itertools.combinations_with_replacement(space.parameters, 2):
        varied = {parameter.name for parameter in pair}
        # What another depends on stands before it.
        for parameter in reversed(space.parameters):
            if parameter.only is not None and parameter.name in varied:
                varied.add(parameter.only[0])
        examples = [p.examples() if p.name in varied else p.examples()[:1] for p in space.parameters]
        for drawn in itertools.product(*examples):
            values: dict[str, Value] = {}
            for parameter, value in zip(space.parameters, drawn, strict=True):
                if parameter.applies(values):
                    values[parameter.name] = value
            yield values


def tried(space: Space, config: Options, values: Mapping[str, Any]) -> Options:
    """``config`` with ``values``. Raises InputError at the line of the option that its message begins with."""
    try:
        return replace(config, **values)
    except InputError as error:
        lines = dict(space.lines or {}) | {parameter.name: parameter.line for parameter in space.parameters}
        line = lines.get(str(error).partition("=")[0], 1)
        raise InputError(f"{space.path}:{line}: {error}") from None
