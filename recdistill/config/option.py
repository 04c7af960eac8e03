"""An option: its default, help and limits, and its role, from which all follows that depends on options.

Roles:

- ``data``: which samples there are.
- ``result``: changes the numbers.
- ``seed``: draws them again.
- ``budget``: how much is done: tokens, epochs, trials.
- ``upstream``: another run.
- ``place``: device, folders, names, what is kept where. A path is a place; with ``content=True`` what lies there
  counts.

`recdistill.config.lineage` reads from them a run's key, what two runs must share to be one recommender, what a sweep
may search, and what a trial shows; the command line reads the groups of ``--help``.
"""

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

from recdistill.errors import InputError, one_line
from recdistill.registry import Registry

Role = Literal["data", "result", "seed", "budget", "upstream", "place"]
#: What an option's text may be a path of: a file or folder to read, one to read or else a name, a file or a folder to
#: write.
Path = Literal["", "read", "read-or-name", "file-or-name", "written-file", "written-folder"]
WRITTEN: tuple[Path, ...] = ("written-file", "written-folder")
ROLES: tuple[Role, ...] = get_args(Role)
#: Characters of a value of the wrong type that a message shows.
SHOWN = 60
#: Between the names of an option that takes several.
JOINED = re.compile(r"[+,/]")


def option(
    default: Any,
    help: str,
    *,
    role: Role = "result",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    common: bool = False,
    content: bool = False,
    path: Path = "",
    choices: Registry | None = None,
    among: Mapping[str, Any] | None = None,
    several: bool = False,
    other_names: Mapping[str, str] | None = None,
    listed: bool = False,
    registered: bool = False,
    read_with: Mapping[str, str] | None = None,
    later: bool = False,
) -> Any:
    """A dataclass field that is an option.

    Args:
        default: also tells nothing of the type, which is the field's annotation.
        help: one sentence for ``--help``.
        role: see the module.
        least, above, most: interval of a number; ``least`` and ``most`` are allowed values, ``above`` is not.
        common: shown among the first in ``--help``.
        content: the value may be a path; then what lies there is part of the result, and the path is not.
        path: what of a path the value is, see `recdistill.config.paths`; with ``content`` it is ``read-or-name``.
        choices: the value is the name of a part of this registry, whose own options join the step's.
        among: keywords that such a part must be registered with.
        several: the value is any number of such names, or of a Literal's, joined by ``+``, ``,`` or ``/``.
        other_names: other texts of a value, to the value that they stand for, as a name that it had before.
        listed: the value is a list by commas; white space around its members says nothing.
        registered: the value is a name in the model registry.
        read_with: options without which this one changes nothing, all of them: to each its values that do, joined by
            `` or `` as ``linear or cosine``, or as ``above 0`` or ``below 1``; see `Config.checked`.
        later: versions without it did as its default does, so that a run has it among its values, and in its key, only
            where it is another.
    """
    limits = {"least": least, "above": above, "most": most}
    about = {"help": help, "role": role, "common": common, "content": content, "choices": choices, "several": several}
    about |= {"other_names": dict(other_names or {}), "listed": listed, "registered": registered}
    about |= {"read_with": dict(read_with or {}), "later": later}
    about["path"] = path or ("read-or-name" if content else "")
    return field(default=default, metadata={**limits, **about, "among": dict(among or {})})


def is_registry_name(name: str) -> bool:
    """Whether MLflow's model registry takes a name: it has no / or :, and is more than dots and white space."""
    return bool(name.strip()) and not {"/", ":"} & set(name) and name not in (".", "..")


def holds(condition: str, value: Any) -> bool:
    """Whether a value is of those of ``read_with``."""
    word, _, limit = condition.partition(" ")
    if word in ("above", "below"):
        return bool(value > float(limit) if word == "above" else value < float(limit))
    return spoken(value) in condition.split(" or ")


def is_truth(value: Any) -> bool:
    """Whether a value is true or false, Python's or NumPy's; NumPy, which takes long to import, is not needed here."""
    return type(value).__name__ in ("bool", "bool_")


def spoken(value: Any) -> str:
    """A value as a command has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Option:
    """What is known of an option of a step.

    Attributes:
        name: of the field, the command line's option and MLproject's parameter.
        type: int, float, bool, str or a Literal.
        default: its value where none is given.
        metadata: of `option`.
        section: what its group of ``--help`` is called.
        owners: the classes of options that it, or the choice of its part, was introduced by.
        parts: the parts whose own option it is, as ``student=sasrec``; none for an option of the step.
    """

    name: str
    type: Any
    default: Any
    metadata: Mapping[str, Any]
    section: str = ""
    owners: tuple[type, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """One sentence."""
        return str(self.metadata["help"])

    @property
    def role(self) -> Role:
        """See the module."""
        role: Role = self.metadata["role"]
        return role

    @property
    def choices(self) -> tuple[str, ...]:
        """The values allowed, where they are names."""
        registry: Registry | None = self.metadata["choices"]
        if registry is not None:
            return registry.names(**self.metadata["among"])
        return tuple(map(str, get_args(self.type))) if get_origin(self.type) is Literal else ()

    def unmet(self, values: Callable[[str], Iterable[Any]]) -> str:
        """What the option is of, as ``schedule=linear or cosine``, where nothing reads it; '' where something may.

        ``values`` gives those that another option has, one, or several where it is searched.
        """
        for name, condition in self.metadata["read_with"].items():
            if not any(holds(condition, value) for value in values(name)):
                return self.need(name)
        return ""

    def need(self, name: str) -> str:
        """One of ``read_with`` in words."""
        condition = self.metadata["read_with"][name]
        return f"{name} {condition}" if condition.startswith(("above ", "below ")) else f"{name}={condition}"

    def named(self, value: Any) -> tuple[str, ...]:
        """The names that a value of an option with `choices` stands for: one, or those that are joined."""
        if not self.metadata["several"]:
            return (value,)
        return tuple(name.strip() for name in JOINED.split(str(value)) if name.strip())

    def canonical(self, value: Any) -> Any:
        """The one spelling of a value: that which another name stands for, a list without white space, 1.0 of 1.

        Numbers of NumPy become Python's, so that a run's key can hold them, and a path becomes text.
        """
        if self.type is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, str):
            names: Mapping[str, Any] = self.metadata.get("other_names", {})
            listed = self.metadata.get("listed", False)
            return names.get(value, ",".join(part.strip() for part in value.split(",")) if listed else value)
        if self.type is bool and is_truth(value):
            return bool(value)
        if is_truth(value):
            return value
        if self.type is int and isinstance(value, Integral):
            return int(value)
        return float(value) if self.type is float and isinstance(value, Real) else value

    def check(self, value: Any) -> None:
        """Raise InputError, one line, unless ``value`` is allowed."""
        name, limits, value = self.name, self.metadata, self.canonical(value)
        shown = one_line(repr(value), SHOWN)
        if self.choices or limits["choices"] is not None:
            if not isinstance(value, str):
                raise InputError(f"{name}={shown}: must be the name of one of {', '.join(self.choices)}")
            for one in self.named(value):
                if one not in self.choices:
                    near = difflib.get_close_matches(str(one), self.choices, n=1, cutoff=0.6)
                    hint = f" (nearest: {near[0]})" if near else ""
                    which = f"{one!r} " if one != value else ""
                    raise InputError(f"{name}={value}: {which}must be one of {', '.join(self.choices)}{hint}")
        elif self.type is int and not isinstance(value, int):
            whole = isinstance(value, float) and value.is_integer()
            raise InputError(f"{name}={shown}: must be a whole number{f', as {int(value)}' if whole else ''}")
        elif self.type in (int, float):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{name}={shown}: must be a finite number")
            if limits["least"] is not None and value < limits["least"]:
                raise InputError(f"{name}={value}: must be at least {limits['least']}")
            if limits["above"] is not None and value <= limits["above"]:
                raise InputError(f"{name}={value}: must be greater than {limits['above']}")
            if limits["most"] is not None and value > limits["most"]:
                raise InputError(f"{name}={value}: must be at most {limits['most']}")
        elif self.type is bool and not isinstance(value, bool):
            raise InputError(f"{name}={shown}: must be true or false")
        elif self.type is str and not isinstance(value, str):
            raise InputError(f"{name}={shown}: must be text")
        if limits["registered"] and value and not is_registry_name(value):
            raise InputError(f"{name}={value}: the registry takes no such name; give one without / and :")

    def read(self, text: str) -> Any:
        """The value that a text stands for, unchecked: the one way from text to a value.

        Raises InputError, naming the type, where it stands for none.
        """
        if self.type is bool:
            if text.lower() not in ("true", "false"):
                raise InputError(f"{self.name}={text}: must be true or false")
            return text.lower() == "true"
        if self.type in (int, float):
            try:
                return self.type(text)
            except ValueError:
                kind = "a whole number" if self.type is int else "a number"
                raise InputError(f"{self.name}={text}: must be {kind}") from None
        return text
