"""A search space read from its YAML file, each mistake in one line with its place."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode, SequenceNode

from recdistill.config import Config, DataConfig, DistillConfig, Option, option_table
from recdistill.config.lineage import searchable
from recdistill.config.yaml_file import Entries, FileNode, read_yaml, setting
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


def read_space(given: str | Path) -> Space:
    """The search space of a file, or of that name among those that come with the package.

    Raises InputError, one line with file and line, for the first mistake.
    """
    path = space_path(str(given))
    root = read_yaml(path, "space", "docs/SWEEPS.md")
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
