"""``sweeps/*.yaml``: a search space read from its file, each mistake in one line with its place.

PyYAML composes the nodes, which know their lines; values are read by the type of the option they are for, so that
``1e-3`` is a number and a title like ``on`` is not a boolean.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from recdistill.config import DistillConfig, check_value
from recdistill.errors import InputError
from recdistill.sweep.space import (
    FIXED_BY_THE_COMMAND,
    METRICS,
    Direction,
    Objective,
    Parameter,
    Pruner,
    PrunerName,
    Sampler,
    SamplerName,
    Space,
    Value,
)

KEYS = ("objective", "objectives", "sampler", "pruner", "seeds", "fixed", "parameters")
PARAMETER_KEYS = ("low", "high", "step", "log", "choices", "only", "unless")
SAMPLER_KEYS = {"startup_trials": 1}
PRUNER_KEYS = {"startup_trials": 1, "warmup_epochs": 0, "min_epochs": 1, "reduction": 2}
PRUNER_TAKES = {"none": (), "median": ("startup_trials", "warmup_epochs"), "hyperband": ("min_epochs", "reduction")}

OPTIONS = {spec.name: spec for spec in fields(DistillConfig)}
SEARCHABLE = [name for name in OPTIONS if name not in FIXED_BY_THE_COMMAND]


@dataclass(frozen=True)
class Part:
    """A node of the file, and the file for messages."""

    path: str
    node: Node

    @property
    def line(self) -> int:
        """Counted from one."""
        return int(self.node.start_mark.line) + 1

    def fail(self, message: str) -> NoReturn:
        """Raise InputError with the place of this part."""
        raise InputError(f"{self.path}:{self.line}: {message}")

    def text(self, what: str) -> str:
        """The scalar's text."""
        if not isinstance(self.node, ScalarNode):
            self.fail(f"{what}: must be a single value")
        return str(self.node.value)

    def items(self, what: str) -> "list[Part]":
        """The list's parts."""
        if not isinstance(self.node, SequenceNode):
            self.fail(f"{what}: must be a list, as in [a, b]")
        return [Part(self.path, node) for node in self.node.value]

    def entries(self, what: str, known: Iterable[str]) -> "dict[str, tuple[Part, Part]]":
        """Key and value parts by key, each key known and there once."""
        if not isinstance(self.node, MappingNode):
            self.fail(f"{what}: must hold lines of the form name: value")
        found: dict[str, tuple[Part, Part]] = {}
        names = list(known)
        for key_node, value_node in self.node.value:
            key = Part(self.path, key_node)
            name = key.text(f"a name in {what}")
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
                key.fail(f"{name}: {what} has no such name" + (f"; the nearest is {near[0]}" if near else ""))
            if name in found:
                key.fail(f"{name}: is already in line {found[name][0].line}; keep one")
            found[name] = (key, Part(self.path, value_node))
        return found

    def value(self, name: str, kind: Any) -> Any:
        """The scalar as a value of ``kind``: int, float, bool, str or a Literal."""
        text = self.text(name)
        if get_origin(kind) is Literal:
            if text not in get_args(kind):
                near = difflib.get_close_matches(text, get_args(kind), n=1, cutoff=0.6)
                hint = f" (nearest: {near[0]})" if near else ""
                self.fail(f"{name}: {text}: must be one of {', '.join(get_args(kind))}{hint}")
            return text
        if kind is bool:
            if text not in ("true", "false"):
                self.fail(f"{name}: {text}: must be true or false")
            return text == "true"
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                self.fail(f"{name}: {text}: must be {'a whole number' if kind is int else 'a number'}")
        return text

    def whole(self, name: str, least: int) -> int:
        """The scalar as a whole number."""
        number: int = self.value(name, int)
        if number < least:
            self.fail(f"{name}: {number}: must be at least {least}")
        return number


def read_space(path: str | Path) -> Space:
    """The search space of a file. Raises InputError, one line with file and line, for the first mistake."""
    root = Part(str(path), compose(str(path)))
    top = root.entries("a search space", KEYS)
    if "parameters" not in top:
        root.fail("parameters: missing; list the options to search")
    objectives = read_objectives(root, top)
    parameters = read_parameters(top["parameters"][1])
    fixed: dict[str, Value] = {}
    lines: dict[str, int] = {}
    if "fixed" in top:
        options = [name for name in OPTIONS if name != "force"]
        for name, (key, part) in top["fixed"][1].entries("fixed", options).items():
            if name in {parameter.name for parameter in parameters}:
                key.fail(f"{name}: is both fixed and searched; keep one")
            fixed[name], lines[name] = option_value(part, name), key.line
    pruner = read_pruner(top["pruner"][1], len(objectives)) if "pruner" in top else Pruner()
    if pruner.name != "none" and not objectives[0].metric.startswith("val/"):
        top["pruner"][1].fail(f"pruner: {objectives[0].metric} is not measured each epoch; only val/ metrics are")
    return Space(
        path=str(path),
        parameters=parameters,
        objectives=objectives,
        sampler=read_sampler(top["sampler"][1]) if "sampler" in top else Sampler(),
        pruner=pruner,
        seeds=top["seeds"][1].whole("seeds", 1) if "seeds" in top else 1,
        fixed=fixed,
        lines=lines,
    )


def compose(path: str) -> Node:
    """The file's root node. Raises InputError where it cannot be read, is empty, or is not YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"space={path}: cannot be read ({error.strerror}); name a file of sweeps/") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}:1: is not UTF-8 text") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.problem, error.context) if part)
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {said}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}: not YAML: {error.reason}") from None
    if node is None:
        raise InputError(f"{path}:1: is empty; see sweeps/quick.yaml")
    return node


def read_objectives(root: Part, top: dict[str, tuple[Part, Part]]) -> tuple[Objective, ...]:
    """``objective``: one metric; ``objectives``: several."""
    if ("objective" in top) == ("objectives" in top):
        place = top["objectives"][0] if "objectives" in top else root
        place.fail("give either objective: METRIC, or objectives: [METRIC, METRIC]")
    if "objective" in top:
        return (read_objective(top["objective"][1]),)
    listed = top["objectives"][1]
    found = tuple(read_objective(part) for part in listed.items("objectives"))
    if len({objective.metric for objective in found}) < max(2, len(found)):
        listed.fail("objectives: needs at least two different metrics; for one use objective: METRIC")
    return found


def read_objective(part: Part) -> Objective:
    """``METRIC``, or ``{metric: METRIC, direction: maximize}``."""
    given = part.entries("objective", ("metric", "direction")) if isinstance(part.node, MappingNode) else {}
    if given and "metric" not in given:
        part.fail("objective: metric is missing")
    place = given["metric"][1] if given else part
    metric = place.text("objective")
    if metric.startswith("test/"):
        place.fail(f"objective: {metric}: test is recorded, never optimised; use val/{metric.removeprefix('test/')}")
    if metric not in METRICS:
        near = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.0)[0]
        place.fail(f"objective: {metric}: no run logs such a metric; the nearest is {near}")
    direction = given["direction"][1].value("direction", Direction) if "direction" in given else METRICS[metric]
    return Objective(metric, direction)


def read_sampler(part: Part) -> Sampler:
    """``NAME``, or ``{name: NAME, startup_trials: 10}``."""
    name, settings = named(part, "sampler", SamplerName, SAMPLER_KEYS, lambda name: tuple(SAMPLER_KEYS))
    return Sampler(name, **settings)


def read_pruner(part: Part, objectives: int) -> Pruner:
    """``NAME``, or a mapping with the settings of that pruner."""
    name, settings = named(part, "pruner", PrunerName, PRUNER_KEYS, PRUNER_TAKES.__getitem__)
    if objectives > 1 and name != "none":
        part.fail(f"pruner: {name}: works for one objective only; leave it out")
    return Pruner(name, **settings)


def named(
    part: Part, what: str, kind: Any, least: dict[str, int], takes: Callable[[str], tuple[str, ...]]
) -> tuple[Any, dict[str, int]]:
    """A name with settings, whole numbers of at least ``least``, those that ``takes`` the name allows."""
    if not isinstance(part.node, MappingNode):
        return part.value(what, kind), {}
    given = part.entries(what, ("name", *least))
    if "name" not in given:
        part.fail(f"{what}: name is missing")
    name = given.pop("name")[1].value(what, kind)
    for setting, (key, _) in given.items():
        if setting not in takes(name):
            key.fail(f"{what}: {name} has no {setting}; it has {', '.join(takes(name)) or 'no settings'}")
    return name, {setting: value.whole(setting, least[setting]) for setting, (_, value) in given.items()}


def read_parameters(part: Part) -> tuple[Parameter, ...]:
    """The searched options, each after the one that it depends on."""
    entries = part.entries("parameters", OPTIONS)
    if not entries:
        part.fail("parameters: is empty; list the options to search")
    read: dict[str, Parameter] = {}
    conditions: dict[str, tuple[str, Part]] = {}
    for name, (key, value) in entries.items():
        if name not in SEARCHABLE:
            key.fail(f"{name}: cannot be searched; give it to the command or under fixed")
        given = value.entries(name, PARAMETER_KEYS)
        read[name] = read_parameter(name, key.line, value, given)
        if "only" in given and "unless" in given:
            given["unless"][0].fail(f"{name}: give only or unless, not both")
        for word in ("only", "unless"):
            if word in given:
                conditions[name] = (word, given[word][1])
    for name, (word, part) in conditions.items():
        read[name] = depending(read[name], word, part, read)
    return in_order(read, conditions)


def read_parameter(name: str, line: int, part: Part, given: dict[str, tuple[Part, Part]]) -> Parameter:
    """An option with its interval or choices."""
    kind: Any = OPTIONS[name].type
    if "choices" in given:
        for other in ("low", "high", "step", "log"):
            if other in given:
                given[other][0].fail(f"{name}: has choices, so it takes no {other}")
        parts = given["choices"][1].items(f"{name}: choices")
        choices = tuple(option_value(choice, name) for choice in parts)
        if len(set(choices)) < max(1, len(choices)):
            given["choices"][1].fail(f"{name}: choices: list each value once, and at least one")
        return Parameter(name, type(choices[0]), choices=choices, line=line)
    if kind not in (int, float):
        part.fail(f"{name}: needs choices, as in {{choices: [{', '.join(map(str, get_args(kind))) or 'true, false'}]}}")
    for end in ("low", "high"):
        if end not in given:
            part.fail(f"{name}: {end} is missing; give low and high, or choices")
    low, high = (option_value(given[end][1], name) for end in ("low", "high"))
    if low > high:
        given["low"][1].fail(f"{name}: low {low} is above high {high}")
    log = given["log"][1].value("log", bool) if "log" in given else False
    if log and low <= 0:
        given["low"][1].fail(f"{name}: low {low}: must be above 0 on a log scale")
    step = given["step"][1].value("step", kind) if "step" in given else None
    if step is not None:
        if log:
            given["step"][0].fail(f"{name}: a log scale takes no step")
        if not 0 < step <= max(high - low, 1 if kind is int else 0):
            given["step"][1].fail(f"{name}: step {step}: must be above 0 and at most high - low")
    return Parameter(name, kind, low, high, step, log, line=line)


def depending(parameter: Parameter, word: str, part: Part, read: dict[str, Parameter]) -> Parameter:
    """``only: {option: [values]}``: searched where another searched option has one of these; ``unless``: none."""
    what = f"{parameter.name}: {word}"
    given = part.entries(what, [name for name in read if name != parameter.name])
    if len(given) != 1:
        part.fail(f"{what}: name one other searched option")
    ((other, (key, listed)),) = given.items()
    allowed = read[other].choices
    if not allowed:
        key.fail(f"{what}: {other} has no choices")
    parts = listed.items(other) if isinstance(listed.node, SequenceNode) else [listed]
    values = tuple(option_value(value, other) for value in parts)
    for value, place in zip(values, parts, strict=True):
        if value not in allowed:
            place.fail(f"{what}: {value} is not among the choices of {other}")
    if word == "unless":
        values = tuple(value for value in allowed if value not in values)
    if not values:
        part.fail(f"{what}: is never so; leave {parameter.name} out")
    return replace(parameter, only=(other, values))


def in_order(read: dict[str, Parameter], conditions: dict[str, tuple[str, Part]]) -> tuple[Parameter, ...]:
    """Each after the one that it depends on."""
    ordered: dict[str, Parameter] = {}
    while len(ordered) < len(read):
        ready = [p for p in read.values() if p.name not in ordered and (p.only is None or p.only[0] in ordered)]
        if not ready:
            name = next(name for name in read if name not in ordered)
            conditions[name][1].fail(f"{name}: depends on itself")
        ordered |= {parameter.name: parameter for parameter in ready}
    return tuple(ordered.values())


def option_value(part: Part, name: str) -> Any:
    """A value of the option, within its interval."""
    spec = OPTIONS[name]
    value = part.value(name, spec.type)
    try:
        check_value(name, value, spec.type, spec.metadata)
    except InputError as error:
        part.fail(str(error))
    return value
