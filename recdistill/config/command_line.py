"""The command line of a step, from its options: help in groups, values, and each mistake in one line."""

import argparse
from typing import Any, TypeVar

from recdistill.config.base import Config, nearest, option_table
from recdistill.config.option import Option
from recdistill.config.paths import located, located_plugins
from recdistill.config.steps import DROPPED
from recdistill.errors import InputError
from recdistill.plugins import load_plugins

Parsed = TypeVar("Parsed", bound=Config)
COMMON = "common options"
PLACES = {"upstream": "finished runs to start from", "place": "files, devices and names"}


def parse(kind: type[Parsed], step: str, arguments: list[str]) -> Parsed:
    """Options ``--name value`` or ``--name=value`` (dashes or underscores) to the step's dataclass.

    Plugins that are named are imported first: their parts' options count. Raises InputError for an unknown name (naming
    the nearest), a value of the wrong type, or one out of range.
    """
    plugins = located_plugins(named_plugins(arguments))
    load_plugins(plugins)
    table = option_table(kind)
    dropped = DROPPED.get(step, ())
    given = read_values([*table, *dropped], step, arguments)
    for name in given.keys() & set(dropped):
        print(f"{name}: {step} no longer reads it; leave it out", flush=True)
        del given[name]
    if plugins:
        given["plugin"] = plugins
    values = {name: table[name].read(text) for name, text in given.items()}
    given_values: dict[str, Any] = {
        name: located(table[name], v) if isinstance(v, str) else v for name, v in values.items()
    }
    return kind(**given_values).checked()


def named_plugins(arguments: list[str]) -> str:
    """The value of ``--plugin`` among arguments, '' where there is none."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--plugin":
            return value if equals else "".join(arguments[place + 1 : place + 2])
    return ""


def read_values(known: list[str], step: str, arguments: list[str]) -> dict[str, str]:
    """Names and raw texts. Raises InputError for an unknown name, a missing value, or one without a name."""
    values: dict[str, str] = {}
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("--"):
            raise InputError(f"{argument}: options are --name value; see recdistill {step} --help")
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name not in known:
            hint = nearest(name, known) or f"; see recdistill {step} --help"
            raise InputError(f"{name}: {step} has no such option{hint}")
        values[name] = value if equals else next(waiting, "--")
        if not equals and values[name].startswith("--"):
            raise InputError(f"{name}: needs a value, as in --{name} value")
    return values


def help_text(kind: type[Config], step: str, arguments: list[str]) -> str:
    """What ``recdistill STEP --help`` prints; options of plugins that are named are in it."""
    load_plugins(located_plugins(named_plugins(arguments)))
    parser = argparse.ArgumentParser(
        prog=f"recdistill {step}",
        usage=f"recdistill {step} --name value ...",
        description=(kind.__doc__ or "").partition(": ")[2],
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
    )
    groups: dict[str, Any] = {}
    for title, one in sorted(grouped(kind), key=lambda entry: place_of_group(entry[0])):
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        groups[title].add_argument(f"--{one.name}", metavar=metavar(one), help=described(one).replace("%", "%%"))
    return parser.format_help()


def grouped(kind: type[Config]) -> list[tuple[str, Option]]:
    """Each option with the title of its group: the common ones, then by what they are about, then runs and places."""
    table = option_table(kind).values()
    return [(COMMON if one.metadata["common"] else PLACES.get(one.role, one.section), one) for one in table]


def place_of_group(title: str) -> int:
    """Common options come first, runs and places last."""
    return 0 if title == COMMON else 2 if title in PLACES.values() else 1


def metavar(one: Option) -> str:
    """What stands for a value in the help."""
    if one.choices:
        return "NAME"
    return {int: "NUMBER", float: "NUMBER", bool: "true|false"}.get(one.type, "TEXT")


def described(one: Option) -> str:
    """An option's help, its values, its default, and the parts that it is of."""
    text = one.help
    if one.choices:
        text += f"; one of {', '.join(one.choices)}"
    if one.parts and not one.name.endswith("_weight"):
        text += f" (with {' or '.join(one.parts)})"
    if one.metadata["read_with"]:
        text += f" (with {', '.join(map(one.need, one.metadata['read_with']))})"
    default = str(one.default).lower() if isinstance(one.default, bool) else one.default
    return text if default == "" else f"{text} [{default}]"
