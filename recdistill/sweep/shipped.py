"""The search spaces and plans of studies that come with the package, by name: ``space=quick``, ``plan=study``."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from recdistill.config.paths import is_there
from recdistill.errors import InputError
from recdistill.registry import PACKAGE

#: An installed package has them here; pyproject.toml puts them there from the checkout's folder ``sweeps``.
INSTALLED = Path(__file__).parent / "spaces"
CHECKOUT = PACKAGE.parent / "sweeps"


def shipped_files() -> dict[str, Path]:
    """Every file by its name, in alphabetical order."""
    found = sorted(INSTALLED.glob("*.yaml")) or sorted(CHECKOUT.glob("*.yaml"))
    return {path.stem: path for path in found}


def shipped_spaces() -> dict[str, Path]:
    """The file of each space by its name, in alphabetical order."""
    return {name: path for name, path in shipped_files().items() if not is_plan(name)}


def shipped_plans() -> dict[str, Path]:
    """The file of each plan of a study by its name, in alphabetical order."""
    return {name: path for name, path in shipped_files().items() if is_plan(name)}


def is_plan(name: str) -> bool:
    """Whether a file of that name is a plan of a study."""
    return name.startswith("study")


def space_path(given: str) -> Path:
    """The file that ``space=`` names: a name of `shipped_spaces`, or a path.

    Raises InputError, naming the nearest, where it is neither.
    """
    return named_file("space", given, shipped_spaces())


def plan_path(given: str) -> Path:
    """The file that ``plan=`` names: a name of `shipped_plans`, or a path.

    Raises InputError, naming the nearest, where it is neither.
    """
    return named_file("plan", given, shipped_plans())


def named_file(option: str, given: str, known: Mapping[str, Path]) -> Path:
    """The file that an option names: one of ``known`` by its name, or a path."""
    if given in known:
        return known[given]
    path = Path(given).expanduser()
    if is_there(path):
        return path
    near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.6)
    hint = f" (nearest: {near[0]})" if near else ""
    names = ", ".join(known)
    raise InputError(f"{option}={given}: there is no such file or {option}; give a file, or one of {names}{hint}")
