"""The code that travels inside a served model, so that it runs without recdistill and without the user's plugin."""

import functools
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from recdistill.config.own_files import imported_names, module_name, plugin_files, python_files
from recdistill.registry import STUDENTS
from recdistill.runs.provenance import PACKAGE

#: What a loaded recommender of ours needs of the package.
SHIPPED: tuple[str, ...] = ("__init__.py", "config", "distillation/__init__.py", "distillation/projection.py")
SHIPPED += ("distillation/output_layer.py", "errors.py", "freed_memory.py", "registry.py", "students")
SHIPPED += ("training/__init__.py", "training/row_gradients.py")
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
    for file in python_files(source):
        copied = target / file.relative_to(source) if source.is_dir() else target
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)


def requirements(student: str) -> list[str]:
    """The packages that a loaded recommender needs, pinned to the versions at hand."""
    declared = STUDENTS.declaration(student)
    needed = set(REQUIRED)
    if not declared.is_ours:
        own = plugin_files(declared)
        names = {name for place in own.values() for file in python_files(place) for name in imported_names(file)}
        # What goes along is imported from there, whatever is installed under its name.
        needed |= {projects()[name] for name in names - {Path(name).stem for name in own} if name in projects()}
    needed.discard(PACKAGE.name)
    # 2.13.0+cpu is on no public index; 2.13.0 is the same release, with or without an accelerator.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in sorted(needed)]


@functools.cache
def projects() -> Mapping[str, str]:
    """The installed project that each importable name outside Python itself comes from."""
    found = importlib.metadata.packages_distributions()
    return {name: of[0] for name, of in found.items() if name not in sys.stdlib_module_names}
