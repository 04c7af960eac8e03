"""The search spaces that come with the package, by name: ``space=quick``."""

import difflib
from pathlib import Path

from recdistill.errors import InputError
from recdistill.registry import PACKAGE

#: An installed package has them here; pyproject.toml puts them there from the checkout's folder ``sweeps``.
INSTALLED = Path(__file__).parent / "spaces"
CHECKOUT = PACKAGE.parent / "sweeps"


def shipped_spaces() -> dict[str, Path]:
    """The file of each space by its name, in alphabetical order."""
    found = sorted(INSTALLED.glob("*.yaml")) or sorted(CHECKOUT.glob("*.yaml"))
    return {path.stem: path for path in found}


def space_path(given: str) -> Path:
    """The file that ``space=`` names: a name of `shipped_spaces`, or a path.

    Raises InputError, naming the nearest, where it is neither.
    """
    known = shipped_spaces()
    if given in known:
        return known[given]
    path = Path(given).expanduser()
    if path.exists():
        return path
    near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.6)
    hint = f" (nearest: {near[0]})" if near else ""
    names = ", ".join(known)
    raise InputError(f"space={given}: there is no such file or space; give a file, or one of {names}{hint}")
