"""A search space read from its YAML file, each mistake in one line with its place.

PyYAML composes the nodes, which know their lines; values are read by the option they are for, so that ``1e-3`` is a
number and a title like ``on`` is not a boolean.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from recdistill.config import Config, DataConfig, DistillConfig, Option, option, option_table
from recdistill.config.lineage import searchable
from recdistill.errors import InputError
from recdistill.sweep.shipped import space_path
from recdistill.sweep.space import Direction, Objective, Parameter, Pruner, Sampler, Space, Value, known_objectives

KEYS = ("objective", "objectives", "sampler", "pruner", "seeds", "fixed", "parameters")
PARAMETER_KEYS = ("low", "high", "step", "log", "choices", "only", "unless")
PRUNER_TAKES = {"none": (), "median": ("startup_trials", "warmup_epochs"), "hyperband": ("min_epochs", "reduction")}


def options() -> Mapping[str, Option]:
    """The options of a trial by name, those of parts and of plugins' parts included."""
    return option_table(DistillConfig)


def searched_options() -> list[str]:
    """The options that a space may search: what changes a result, but not the data or how it is ranked.

    All trials of a sweep answer the same question; their metrics could not be compared otherwise.
    """
    return [name for name in searchable(DistillConfig) if DataConfig not in options()[name].owners]


def fixed_options() -> list[str]:
    """The options that a space may fix: all but ``force`` and ``plugin``, which count before the file is read."""
    return [name for name, one in options().items() if Config not in one.owners]


def setting(name: str, kind: Any, least: float | None = None) -> Option:
    """A value of the file that is no option of a step, read and checked like one."""
    return Option(name, kind, None, option(None, "", least=least).metadata)


@dataclass(frozen=True)
class FileNode:
    """A node of the file, and the file for messages."""

    path: str
    content: Node

    @property
    def line(self) -> int:
        """Counted from one."""
        return int(self.content.start_mark.line) + 1

    def fail(self, message: str) -> NoReturn:
        """Raise InputError with the place of this node."""
        raise InputError(f"{self.path}:{self.line}: {message}")

    def text(self, what: str) -> str:
        """The scalar's text."""
        if not isinstance(self.content, ScalarNode):
            self.fail(f"{what}: must be a single value")
        return str(self.content.value)

    def items(self, what: str) -> "list[FileNode]":
        """The list's nodes."""
        if not isinstance(self.content, SequenceNode):
            self.fail(f"{what}: must be a list, as in [a, b]")
        return [FileNode(self.path, node) for node in self.content.value]

    def entries(self, what: str, known: Iterable[str]) -> "Entries":
        """Key and value nodes by key, each key known and there once."""
        if not isinstance(self.content, MappingNode):
            self.fail(f"{what}: must hold lines of the form name: value")
        found: Entries = {}
        names = list(known)
        for key_node, value_node in self.content.value:
            key = FileNode(self.path, key_node)
            name = key.text(f"a name in {what}")
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
                key.fail(f"{name}: {what} has no such name" + (f"; the nearest is {near[0]}" if near else ""))
            if name in found:
                key.fail(f"{name}: is already in line {found[name][0].line}; keep one")
            found[name] = (key, FileNode(self.path, value_node))
        return found

    def value(self, one: Option) -> Any:
        """The scalar as a value of the option, which is allowed."""
        text = self.text(one.name)
        try:
            value = one.read(text)
            one.check(value)
        except InputError as error:
            self.fail(str(error))
        return value


#: Key and value of each line of a mapping, by key.
Entries = dict[str, tuple[FileNode, FileNode]]


def read_space(given: str | Path) -> Space:
    """The search space of a file, or of that name among those that come with the package.

    Raises InputError, one line with file and line, for the first mistake.
    """
    path = space_path(str(given))
    root = FileNode(str(path), compose(path))
    top = root.entries("a search space", KEYS)
    if "parameters" not in top:
        root.fail("parameters: missing; list the options to search")
    objectives = read_objectives(root, top)
    parameters = read_parameters(top["parameters"][1])
    fixed: dict[str, Value] = {}
    lines: dict[str, int] = {}
    if "fixed" in top:
        for name, (key, node) in top["fixed"][1].entries("fixed", fixed_options()).items():
            if name in {parameter.name for parameter in parameters}:
                key.fail(f"{name}: is both fixed and searched; keep one")
            fixed[name], lines[name] = node.value(options()[name]), key.line
    pruner = read_pruner(top["pruner"][1], len(objectives)) if "pruner" in top else Pruner()
    if pruner.name != "none" and not objectives[0].metric.startswith("val/"):
        top["pruner"][1].fail(f"pruner: {objectives[0].metric} is not measured each epoch; only val/ metrics are")
    return Space(
        path=str(path),
        parameters=parameters,
        objectives=objectives,
        sampler=read_sampler(top["sampler"][1]) if "sampler" in top else Sampler(),
        pruner=pruner,
        seeds=top["seeds"][1].value(setting("seeds", int, least=1)) if "seeds" in top else 1,
        fixed=fixed,
        lines=lines,
    )


def compose(path: Path) -> Node:
    """The file's root node. Raises InputError where it cannot be read, is empty, or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"space={path}: cannot be read ({error.strerror}); give another file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}:1: is not UTF-8 text") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(said for said in (error.problem, error.context) if said)
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {said}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}: not YAML: {error.reason}") from None
    if node is None:
        raise InputError(f"{path}:1: is empty; see docs/SWEEPS.md")
    return node


def read_objectives(root: FileNode, top: Entries) -> tuple[Objective, ...]:
    """``objective``: one metric; ``objectives``: several."""
    if ("objective" in top) == ("objectives" in top):
        place = top["objectives"][0] if "objectives" in top else root
        place.fail("give either objective: METRIC, or objectives: [METRIC, METRIC]")
    if "objective" in top:
        return (read_objective(top["objective"][1]),)
    listed = top["objectives"][1]
    found = tuple(read_objective(node) for node in listed.items("objectives"))
    if len({objective.metric for objective in found}) < max(2, len(found)):
        listed.fail("objectives: needs at least two different metrics; for one use objective: METRIC")
    return found


def read_objective(node: FileNode) -> Objective:
    """``METRIC``, or ``{metric: METRIC, direction: maximize}``."""
    given = node.entries("objective", ("metric", "direction")) if isinstance(node.content, MappingNode) else {}
    if given and "metric" not in given:
        node.fail("objective: metric is missing")
    place = given["metric"][1] if given else node
    metric = place.text("objective")
    if metric.startswith("test/"):
        place.fail(f"objective: {metric}: test is recorded, never optimised; use val/{metric.removeprefix('test/')}")
    known = known_objectives()
    if metric not in known:
        near = difflib.get_close_matches(metric, known, n=1, cutoff=0.0)[0]
        place.fail(f"objective: {metric}: no run logs such a metric; the nearest is {near}")
    if "direction" in given:
        return Objective(metric, given["direction"][1].value(setting("direction", Direction)))
    return Objective(metric, known[metric])


def read_sampler(node: FileNode) -> Sampler:
    """``NAME``, or ``{name: NAME, startup_trials: 10}``."""
    return Sampler(**named(node, "sampler", Sampler, lambda name: ("startup_trials",)))


def read_pruner(node: FileNode, objectives: int) -> Pruner:
    """``NAME``, or a mapping with the settings of that pruner."""
    pruner = Pruner(**named(node, "pruner", Pruner, PRUNER_TAKES.__getitem__))
    if objectives > 1 and pruner.name != "none":
        node.fail(f"pruner: {pruner.name}: works for one objective only; leave it out")
    return pruner


def named(node: FileNode, what: str, kind: type, takes: Callable[[str], tuple[str, ...]]) -> dict[str, Any]:
    """The values of a sampler or pruner: its name, and the settings that a method of this name ``takes``."""
    known = {spec.name: Option(spec.name, spec.type, spec.default, spec.metadata) for spec in fields(kind)}
    known["name"] = replace(known["name"], name=what)
    if not isinstance(node.content, MappingNode):
        return {"name": node.value(known["name"])}
    given = node.entries(what, known)
    if "name" not in given:
        node.fail(f"{what}: name is missing")
    name = given["name"][1].value(known["name"])
    for key_name, (key, _) in given.items():
        if key_name not in ("name", *takes(name)):
            key.fail(f"{what}: {name} has no {key_name}; it has {', '.join(takes(name)) or 'no settings'}")
    return {key_name: value.value(known[key_name]) for key_name, (_, value) in given.items()}


def read_parameters(node: FileNode) -> tuple[Parameter, ...]:
    """The searched options, each after the one that it depends on."""
    entries = node.entries("parameters", options())
    if not entries:
        node.fail("parameters: is empty; list the options to search")
    read: dict[str, Parameter] = {}
    conditions: dict[str, tuple[str, FileNode]] = {}
    for name, (key, value) in entries.items():
        if name not in searched_options():
            key.fail(f"{name}: cannot be searched; give it to the command or under fixed")
        given = value.entries(name, PARAMETER_KEYS)
        read[name] = read_parameter(name, key.line, value, given)
        if "only" in given and "unless" in given:
            given["unless"][0].fail(f"{name}: give only or unless, not both")
        for word in ("only", "unless"):
            if word in given:
                conditions[name] = (word, given[word][1])
    for name, (word, node) in conditions.items():
        read[name] = depending(read[name], word, node, read)
    return in_order(read, conditions)


def read_parameter(name: str, line: int, node: FileNode, given: Entries) -> Parameter:
    """An option with its interval or choices."""
    one = options()[name]
    if "choices" in given:
        for other in ("low", "high", "step", "log"):
            if other in given:
                given[other][0].fail(f"{name}: has choices, so it takes no {other}")
        choices = tuple(choice.value(one) for choice in given["choices"][1].items(f"{name}: choices"))
        if len(set(choices)) < max(1, len(choices)):
            given["choices"][1].fail(f"{name}: choices: list each value once, and at least one")
        return Parameter(name, type(choices[0]), choices=choices, line=line)
    if one.type not in (int, float):
        examples = one.choices or (("true", "false") if one.type is bool else ("one", "another"))
        node.fail(f"{name}: needs choices, as in {{choices: [{', '.join(examples)}]}}")
    low, high, step, log = read_interval(one, node, given)
    return Parameter(name, one.type, low, high, step, log, line=line)


def read_interval(one: Option, node: FileNode, given: Entries) -> tuple[Any, Any, Any, bool]:
    """Low, high, step (or None) and whether the scale is logarithmic."""
    name = one.name
    for end in ("low", "high"):
        if end not in given:
            node.fail(f"{name}: {end} is missing; give low and high, or choices")
    low, high = (given[end][1].value(one) for end in ("low", "high"))
    if low > high:
        given["low"][1].fail(f"{name}: low {low} is above high {high}")
    log = given["log"][1].value(setting("log", bool)) if "log" in given else False
    if log and low <= 0:
        given["low"][1].fail(f"{name}: low {low}: must be above 0 on a log scale")
    step = given["step"][1].value(setting("step", one.type)) if "step" in given else None
    if step is not None:
        if log:
            given["step"][0].fail(f"{name}: a log scale takes no step")
        if not 0 < step <= max(high - low, 1 if one.type is int else 0):
            given["step"][1].fail(f"{name}: step {step}: must be above 0 and at most high - low")
    return low, high, step, log


def depending(parameter: Parameter, word: str, node: FileNode, read: dict[str, Parameter]) -> Parameter:
    """``only: {option: [values]}``: searched where another searched option has one of these; ``unless``: none."""
    what = f"{parameter.name}: {word}"
    given = node.entries(what, [name for name in read if name != parameter.name])
    if len(given) != 1:
        node.fail(f"{what}: name one other searched option")
    ((other, (key, listed)),) = given.items()
    allowed = read[other].choices
    if not allowed:
        key.fail(f"{what}: {other} has no choices")
    nodes = listed.items(other) if isinstance(listed.content, SequenceNode) else [listed]
    values = tuple(value.value(options()[other]) for value in nodes)
    for value, place in zip(values, nodes, strict=True):
        if value not in allowed:
            place.fail(f"{what}: {value} is not among the choices of {other}")
    if word == "unless":
        values = tuple(value for value in allowed if value not in values)
    if not values:
        node.fail(f"{what}: is never so; leave {parameter.name} out")
    return replace(parameter, only=(other, values))


def in_order(read: dict[str, Parameter], conditions: dict[str, tuple[str, FileNode]]) -> tuple[Parameter, ...]:
    """Each after the one that it depends on."""
    ordered: dict[str, Parameter] = {}
    while len(ordered) < len(read):
        ready = [p for p in read.values() if p.name not in ordered and (p.only is None or p.only[0] in ordered)]
        if not ready:
            name = next(name for name in read if name not in ordered)
            conditions[name][1].fail(f"{name}: depends on itself")
        ordered |= {parameter.name: parameter for parameter in ready}
    return tuple(ordered.values())
