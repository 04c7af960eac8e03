"""Imports go one way, as docs/ARCHITECTURE.md says, and heavy libraries stay in their layer."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "recdistill"
FILES = sorted(PACKAGE.rglob("*.py"))

DOCUMENT = PACKAGE.parent / "docs" / "ARCHITECTURE.md"


def layers() -> dict[str, set[str]]:
    """The layers of the document's table, from below, and those that each may import, itself aside."""
    found: dict[str, set[str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        named = re.findall(r"`(\w+)(?:\.py|/)`", cells[0]) if line.startswith("| `") else []
        text = cells[-1]
        allowed = set(found) if text == "all above" else set(re.findall(r"\w+", text)) - {"nothing"}
        # Of a row with several files, each may import those named before it.
        found |= {name: allowed | set(named[:place]) for place, name in enumerate(named)}
    return found


LAYERS = layers()
LAYERS["__main__"] = set(LAYERS)

# A library, and where alone it may be imported.
ONLY_IN = {
    "mlflow": ("tracking",),
    "optuna": ("sweep", "steps/sweep"),
    "peft": ("teacher",),
    "transformers": ("teacher",),
    "accelerate": ("teacher", "training", "steps"),
    "gguf": ("teacher",),
}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            # `from recdistill import config` names a layer, too.
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "recdistill")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_walk_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("import a.b\ndef f():\n    from recdistill import config\n    from c.d import e\n")
    assert sorted(imported(file)) == ["a.b", "c.d", "recdistill", "recdistill.config"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_layers_below_its_own(path):
    layer = layer_of(path)
    if layer == "__init__":
        assert list(imported(path)) == []
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("recdistill.")}
    assert used - {layer} <= LAYERS[layer], "change the file, or docs/ARCHITECTURE.md"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_libraries_stay_in_their_layer(path):
    for name in imported(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or name_of(path).startswith(allowed), name


def test_distill_is_pure():
    for path in FILES:
        if layer_of(path) == "distill":
            foreign = {name.split(".")[0] for name in imported(path)} - {"recdistill", "torch"}
            assert foreign <= {"collections", "dataclasses", "math", "typing", "functools"}, name_of(path)


def test_the_document_has_every_layer_and_no_other():
    assert set(LAYERS) == {layer_of(path) for path in FILES} - {"__init__"}


def test_layers_go_one_way():
    """A layer may import some of those that stand above it in the document's table, and none below."""
    above: set[str] = set()
    for layer, allowed in LAYERS.items():
        assert allowed <= above, layer
        above.add(layer)


def test_no_file_is_long():
    assert [name_of(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) >= 400] == []


def test_each_step_imports_its_own_layer_only_when_it_runs():
    """``--help`` and mistakes are quick: nothing above the options is imported at the top of ``__main__``."""
    module = ast.parse((PACKAGE / "__main__.py").read_text(encoding="utf-8"))
    top = {
        node.module
        for node in module.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recdistill")
    }
    assert top <= {"recdistill.config.command_line", "recdistill.config", "recdistill.errors"}
