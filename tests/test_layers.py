"""Imports go one way, as docs/ARCHITECTURE.md says, and heavy libraries stay in their room."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "recdistill"
FILES = sorted(PACKAGE.rglob("*.py"))

DOCUMENT = PACKAGE.parent / "docs" / "ARCHITECTURE.md"


def rooms() -> dict[str, set[str]]:
    """The rooms of the document's table, from below, and those that each may import, itself aside."""
    found: dict[str, set[str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        named = re.fullmatch(r"`(\w+)(?:\.py|/)`", cells[0]) if line.startswith("| `") else None
        if named is not None:
            text = cells[-1]
            found[named[1]] = set(found) if text == "all above" else set(re.findall(r"\w+", text)) - {"nothing"}
    return found


ROOMS = rooms()

# A library, and where alone it may be imported.
ONLY_IN = {
    "mlflow": ("runs/",),
    "optuna": ("sweep/",),
    "peft": ("teachers/",),
    "transformers": ("teachers/", "testing/", "views/"),
    "accelerate": ("teachers/", "training/"),
    "gguf": ("teachers/",),
    "rich": ("report/", "steps/"),
    "matplotlib": ("report/", "sweep/"),
}

# What pure functions are made of.
PURE = {"abc", "collections", "dataclasses", "functools", "itertools", "math", "re", "statistics", "typing", "warnings"}
PURE |= {"numpy", "pandas", "recdistill", "scipy", "torch", "tqdm", "unicodedata"}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            # `from recdistill import config` names a room, too.
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "recdistill")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_walk_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("import a.b\ndef f():\n    from recdistill import config\n    from c.d import e\n")
    assert sorted(imported(file)) == ["a.b", "c.d", "recdistill", "recdistill.config"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_rooms_below_its_own(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("recdistill.")}
    # The registry makes options of what it reads, and config is built on the registry.
    allowed = ROOMS[room] | ({"config"} if room == "registry" else set())
    assert used - {room} <= allowed, "change the file, or docs/ARCHITECTURE.md"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_libraries_stay_in_their_room(path):
    for name in imported(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or name_of(path).startswith(allowed), name


@pytest.mark.parametrize("room", ["distillation", "evaluation"])
def test_pure_rooms_do_no_input_or_output(room):
    for path in FILES:
        if room_of(path) == room:
            foreign = {name.split(".")[0] for name in imported(path)} - PURE
            # A user's policy file is run where it is read.
            known = {"runpy", "pathlib"} if path.stem == "custom" else set()
            assert foreign <= known, name_of(path)


def test_the_document_has_every_room_and_no_other():
    assert set(ROOMS) == {room_of(path) for path in FILES} - {"__init__", "__main__"}


def test_rooms_go_one_way():
    """A room may import some of those that stand above it in the document's table, and none below."""
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, room
        above.add(room)


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "steps"], ids=name_of)
def test_functions_of_steps_are_short(path):
    long = [one.name for one in functions(path) if (one.end_lineno or 0) - one.lineno >= 60]
    assert long == []


def test_the_command_line_imports_no_room_but_config_at_first():
    """``--help`` and mistakes are quick: nothing above the options is imported at the top of ``__main__``."""
    module = ast.parse((PACKAGE / "__main__.py").read_text(encoding="utf-8"))
    top = {name for node in module.body for name in imported_by(node) if name.startswith("recdistill")}
    assert {name.split(".")[1] for name in top} <= {"config", "errors"}


def imported_by(node: ast.stmt) -> Iterator[str]:
    """Modules that a statement outside of functions imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom):
            yield part.module or ""


def at_first(path: Path) -> set[str]:
    """What a file imports as soon as it is imported itself; not what it names for a type checker."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    nodes = [node for node in nodes if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    return {name for node in nodes for name in imported_by(node)} | {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }


@pytest.mark.parametrize("step", ["backbone", "distill", "main", "map_items", "recommend", "study", "sweep", "teacher"])
def test_a_step_imports_no_library_of_llms_at_first(step):
    """They take seconds, which a student that learns from finished answers does not need."""
    waiting, found = {f"recdistill.steps.{step}"}, set[str]()
    while waiting:
        name = waiting.pop()
        found.add(name)
        path = PACKAGE.parent.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name.startswith("recdistill") and file.is_file():
            waiting |= at_first(file) - found
    assert len(found) > 50
    assert not {name.split(".")[0] for name in found} & {"transformers", "peft", "accelerate", "sklearn"}
