"""The files of a user's module: itself, and the modules and packages beside it that it imports."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from recdistill.errors import InputError
from recdistill.registry import PACKAGE, Declaration


def part_digest(declared: Declaration) -> str:
    """SHA-256 of all files that a user's part is made of; of its own source where it is written in none."""
    return digest_of(declared.file, plugin_files(declared).values()) if declared.file.is_file() else declared.content()


def module_digest(file: Path) -> str:
    """SHA-256 of a Python file and of those beside it that it imports."""
    return digest_of(file, beside(file).values())


def digest_of(first: Path, places: Iterable[Path]) -> str:
    """SHA-256 of a file and, behind it, those of ``places``, files and folders; of a lone file that of its content."""
    files = {file for place in places for file in python_files(place)} - {first}
    digest = hashlib.sha256(first.read_bytes())
    for file in sorted(files):
        digest.update(f" {file.name} ".encode() + file.read_bytes())
    return digest.hexdigest()


def module_name(declared: Declaration) -> str:
    """The name that a user's module is imported by inside a model; a script's is that of its file."""
    return declared.file.stem if declared.module == "__main__" else declared.module


def plugin_files(declared: Declaration) -> dict[str, Path]:
    """What a user's part needs of the user's code, by the place inside a model.

    That is its file, or the whole package that its module is in, and what of the user's lies beside and is imported.
    Raises InputError where it is written in no file.
    """
    if not declared.file.is_file():
        raise InputError(
            f"student={declared.name}: is defined in no file that a served model could take along; write it into a "
            "Python file and give that as plugin="
        )
    parts = module_name(declared).split(".")
    if declared.file.name == "__init__.py" or len(parts) > 1:
        depth = len(parts) - (declared.file.name != "__init__.py")
        return beside(declared.file.parents[depth - 1])
    return beside(declared.file)


def beside(first: Path) -> dict[str, Path]:
    """A Python file, or the folder of a package, and those beside it that it imports, and these, by name."""
    found, waiting = {}, [first]
    followed = not installed_in(first.parent)
    while waiting:
        place = waiting.pop()
        found[place.name] = place
        for file in python_files(place) if followed else ():
            imported = (imported_place(first.parent, name) for name in imported_names(file))
            waiting += [one for one in imported if one is not None and one.name not in found]
    return found


def python_files(place: Path) -> list[Path]:
    """A file, or the Python files of a folder and of those in it."""
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def imported_place(folder: Path, name: str) -> Path | None:
    """The file or package in a folder that Python would import by a name; None where it is none of the user's there.

    A folder without ``__init__.py`` is imported only where nothing else has the name.
    """
    package, module = folder / name, folder / f"{name}.py"
    if name == PACKAGE.name:
        return None
    if (package / "__init__.py").is_file():
        return package
    if module.is_file():
        return module
    plain = package.is_dir() and name not in sys.stdlib_module_names and any(package.rglob("*.py"))
    elsewhere = PathFinder.find_spec(name) if plain else None
    return package if plain and (elsewhere is None or elsewhere.origin is None) else None


def installed_in(folder: Path) -> bool:
    """Whether a folder holds installed projects, which a model requires by name instead."""
    return any(folder.glob("*.dist-info"))


def imported_names(file: Path) -> Iterator[str]:
    """First parts of the names of all modules that a file imports; none of a file that is no Python."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
