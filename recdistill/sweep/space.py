"""The search space of a sweep: parameters, objectives, sampler and pruner."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from optuna import Trial

from recdistill.config import DistillConfig, changed, narrow, option, option_table
from recdistill.config.base import options_in_use
from recdistill.config.option import spoken
from recdistill.config.student import check_measured, check_without_teacher
from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import metric_names

SamplerName = Literal["tpe", "random", "qmc", "nsga2"]
PrunerName = Literal["none", "median", "hyperband"]
Direction = Literal["maximize", "minimize"]

Options = TypeVar("Options", bound=DistillConfig)
Value = bool | int | float | str


def known_objectives() -> dict[str, Direction]:
    """The numbers of a trial that a sweep may choose by, and the better direction of each.

    They are the validation metrics of ranks and two times. Test metrics are recorded; a sweep never chooses by them.
    """
    ranked: dict[str, Direction] = {f"val/{name}": "maximize" for name in metric_names()}
    return ranked | {"latency_ms": "minimize", "train_seconds": "minimize"}


@dataclass(frozen=True)
class Parameter:
    """An option that is searched: an interval (``low`` and ``high`` included) or ``choices``.

    Attributes:
        only: the option is searched where another has one of these values, ``(option, values)``.
        line: its line in the file.
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
        """Whether the option is searched when the other options have these values."""
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
    """How values are drawn."""

    name: SamplerName = option("tpe", "the method")
    startup_trials: int = option(10, "random trials before the method begins; nsga2: its population", least=1)


@dataclass(frozen=True)
class Pruner:
    """When a trial is given up.

    median: its best value so far is worse than the median of the others at the same epoch. hyperband: brackets of
    successive halving.
    """

    name: PrunerName = option("none", "the method")
    startup_trials: int = option(5, "median: trials that are never given up", least=1)
    warmup_epochs: int = option(5, "median: epochs after which a trial may be given up", least=0)
    min_epochs: int = option(3, "hyperband: epochs after which a trial may be given up", least=1)
    reduction: int = option(3, "hyperband: one trial in so many is kept at each step", least=2)


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
        lines: line in the file of each fixed option.
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
        """All that a study depends on, as JSON values; the place and the layout of the file do not count."""
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
            value = config.value(parameter.name)
            if parameter.applies(values):
                if not parameter.contains(value):
                    return None
                values[parameter.name] = value
        return values


def base_config(space: Space, config: DistillConfig) -> DistillConfig:
    """The options that all trials share: the command's, then the file's.

    An option that the command set to another value than its default wins over the file's ``fixed``. It may be one of a
    part that the file chooses, as ``decay`` of ``student=mean``. Raises InputError, with the file's line, where the
    command also set a searched option, or where some combination of values is not valid.
    """
    table = option_table(DistillConfig)
    values = {name: value for name, value in config.values().items() if name in table}
    given = {name: value for name, value in values.items() if value != table[name].default}
    config = narrow(config, DistillConfig) if config.parts_later else config
    of_parts = {name: value for name, value in given.items() if name not in config.values()}
    for parameter in space.parameters:
        if parameter.name in given:
            raise InputError(
                f"{parameter.name}={given[parameter.name]}: is searched by {space.path}:{parameter.line}; "
                f"leave it out, or take it out of a copy of the file"
            )
    fixed: dict[str, Any] = {name: value for name, value in (space.fixed or {}).items() if name not in given}
    searched = {p.name: p.nearest(config.value(p.name)) for p in space.parameters if p.only is None}
    in_use = options_in_use(DistillConfig, values | searched | fixed)
    for name, value in of_parts.items():
        if name not in in_use:
            where = " or ".join(table[name].parts)
            raise InputError(
                f"{name}={spoken(value)}: is of {where}, which not all trials of {space.path} have; set that under "
                f"fixed or beside {name}, or leave {name} out"
            )
    try:
        base = changed(config, **fixed, **of_parts)
    except InputError:
        # A fixed value need not fit the default of an option that is searched.
        base = config_of_trial(space, config, fixed | searched | of_parts)
    for _ in example_configs(space, base):
        pass
    check_read(space, base)
    return base


def check_read(space: Space, base: DistillConfig) -> None:
    """Raise InputError, with the file's line, where an option is searched, fixed or given that no trial reads.

    A trial may well have values that nothing reads beside its others, as ``beta`` at ``alpha=0``.
    """
    searched, lines = {one.name: one for one in space.parameters}, dict(space.lines or {})

    def values(name: str) -> list[Any]:
        return searched[name].examples() if name in searched else [base.value(name)]

    for name, one in option_table(type(base)).items():
        need = one.unmet(values)
        if need and name in searched:
            place = f"{space.path}:{searched[name].line}: {name}"
            raise InputError(f"{place}: is of {need}, which no trial has; set that, or leave it out")
        if need and base.value(name) != one.default:
            place = f"{space.path}:{lines[name]}: " if name in lines else ""
            given = f"{place}{name}={spoken(base.value(name))}"
            raise InputError(f"{given}: is of {need}, which no trial has; set that, or leave {name} out")


def example_configs(space: Space, base: Options) -> Iterator[Options]:
    """The options of the trials that `combinations` lists.

    Raises InputError, with the file's line, at the first that is not valid.
    """
    for values in combinations(space):
        yield config_of_trial(space, base, values)


def combinations(space: Space) -> Iterator[dict[str, Value]]:
    """For every two parameters (and those they depend on) all choices and ends, the other parameters at their first.

    A check of the options looks at two of them at most, so that what it could refuse in any trial is refused here.
    """
    for pair in itertools.combinations_with_replacement(space.parameters, 2):
        varied = {parameter.name for parameter in pair}
        # A parameter stands after the one it depends on.
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


def config_of_trial(space: Space, base: Options, values: Mapping[str, Any]) -> Options:
    """``base`` with ``values``. Raises InputError at the line of the option that its message begins with."""
    try:
        config = changed(base, **values)
        # A sweep measures its trials, and trains the best one's student without a teacher, too.
        check_without_teacher(config)
        check_measured(config)
        return config
    except InputError as error:
        lines = dict(space.lines or {}) | {parameter.name: parameter.line for parameter in space.parameters}
        line = lines.get(str(error).partition("=")[0], 1)
        raise InputError(f"{space.path}:{line}: {error}") from None
