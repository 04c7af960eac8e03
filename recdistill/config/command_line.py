"""Command-line options from a step's dataclass (jsonargparse does the typing), each mistake in one line."""

import difflib
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser

from recdistill.config import Config
from recdistill.errors import InputError

Parsed = TypeVar("Parsed", bound=Config)


class OneLineParser(ArgumentParser):
    """An argument parser whose mistakes are InputErrors of one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(" ".join(str(message).split()))


def parse(kind: type[Parsed], step: str, arguments: list[str]) -> Parsed:
    """Options ``--name value`` or ``--name=value`` (dashes or underscores) to the step's dataclass.

    Raises InputError for an unknown name (naming the nearest), a value of the wrong type, or one out of range.
    """
    known = [spec.name for spec in fields(kind)]
    parser = OneLineParser(prog=f"recdistill {step}", description=kind.__doc__)
    for spec in fields(kind):
        default: Any = spec.default
        parser.add_argument(f"--{spec.name}", type=spec.type, default=default, help=spec.metadata["help"])
    if "--help" in arguments:
        parser.parse_args(["--help"])
    given = read_values(known, step, arguments)
    return kind(**{name: read_value(parser, name, text) for name, text in given.items()})


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
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InputError(f"{name}: {step} has no such option; the nearest is {near}")
        values[name] = value if equals else next(waiting, "--")
        if not equals and values[name].startswith("--"):
            raise InputError(f"{name}: needs a value, as in --{name} value")
    return values


def read_value(parser: OneLineParser, name: str, text: str) -> Any:
    """The option's value. Raises InputError, naming the type, where jsonargparse cannot read ``text``."""
    kinds: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    try:
        return parser.parse_args([f"--{name}={text}"]).as_dict()[name]
    except InputError:
        action: Any = next(action for action in parser._actions if action.dest == name)
        hint = getattr(action, "_typehint", None) or action.type
        allowed = ", ".join(map(str, getattr(hint, "__args__", ())))
        raise InputError(f"{name}={text}: must be {kinds.get(hint) or f'one of {allowed}'}") from None
