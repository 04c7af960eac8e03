"""The code that travels inside a served model, so that it runs without recdistill and without the user's plugin."""

import ast
import functools
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from recdistill.errors import InputError
from recdistill.registry import STUDENTS, Declaration
from recdistill.runs.provenance import PACKAGE

#: What a loaded recommender of ours needs of the package.
SHIPPED: tuple[str, ...] = ("__init__.py", "config", "distillation/__init__.py", "distillation/projection.py")
SHIPPED += ("distillation/output_layer.py", "errors.py", "registry.py", "students")
#: What a user's module beside its recommender may import besides: every room below the teachers.
SHIPPED_WITH_PLUGIN = (*SHIPPED, "data", "distillation", "evaluation", "training")
#: What it needs of other projects.
REQUIRED = ("mlflow", "numpy", "pandas", "safetensors", "torch")
MODULES_FILE = "modules.json"


def ship_code(folder: Path, student: str) -> None:
    """Copy the code that a recommender needs to ``folder/code``, and name a user's modules in ``modules.json``.

    Raises InputError where a user's recommender is written in no file.
    """
    declared = STUDENTS.declaration(student)
    for part in SHIPPED if declared.is_ours else SHIPPED_WITH_PLUGIN:
        copy_python(PACKAGE / part, folder / "code" / PACKAGE.name / part)
    modules = []
    if not declared.is_ours:
        files = plugin_files(declared)
        for name, file in files.items():
            copy_python(file, folder / "code" / name)
        modules.append(module_name(declared))
    (folder / MODULES_FILE).write_text(json.dumps(modules) + "\n", encoding="utf-8")


def copy_python(source: Path, target: Path) -> None:
    """Copy a file, or the Python files of a folder and of those in it."""
    for file in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
        copied = target / file.relative_to(source) if source.is_dir() else target
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)


def module_name(declared: Declaration) -> str:
    """The name that a user's module is imported by inside the model; a script's is that of its file."""
    return declared.file.stem if declared.module == "__main__" else declared.module


def plugin_files(declared: Declaration) -> dict[str, Path]:
    """What a user's recommender needs of the user's code, by the place inside the model.

    That is the whole package that its module is in; or its file, and the files beside it that it imports. Raises
    InputError where it is written in no file.
    """
    if not declared.file.is_file():
        raise InputError(
            f"student={declared.name}: is defined in no file that a served model could take along; write it into a "
            "Python file and give that as plugin="
        )
    parts = module_name(declared).split(".")
    if declared.file.name == "__init__.py" or len(parts) > 1:
        depth = len(parts) - (declared.file.name != "__init__.py")
        return {parts[0]: declared.file.parents[depth - 1]}
    found, waiting = {}, [declared.file]
    while waiting:
        file = waiting.pop()
        found[file.name] = file
        beside = [file.with_name(f"{name}.py") for name in imported_names(file)]
        waiting += [one for one in beside if one.is_file() and one.name not in found and not installed_in(file.parent)]
    return found


def installed_in(folder: Path) -> bool:
    """Whether a folder holds installed projects, which a model requires by name instead."""
    return any(folder.glob("*.dist-info"))


def imported_names(file: Path) -> Iterator[str]:
    """First parts of the names of all modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def requirements(student: str) -> list[str]:
    """The packages that a loaded recommender needs, pinned to the versions at hand."""
    declared = STUDENTS.declaration(student)
    needed = set(REQUIRED)
    if not declared.is_ours:
        for source in plugin_files(declared).values():
            for file in source.rglob("*.py") if source.is_dir() else [source]:
                needed |= {projects()[name] for name in imported_names(file) if name in projects()}
    needed.discard(PACKAGE.name)
    # 2.13.0+cpu is on no public index; 2.13.0 is the same release, with or without an accelerator.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in sorted(needed)]


@functools.cache
def projects() -> Mapping[str, str]:
    """The installed project that each importable name outside Python itself comes from."""
    found = importlib.metadata.packages_distributions()
    return {name: of[0] for name, of in found.items() if name not in sys.stdlib_module_names}
