"""Users' modules: by name, by file, by entry point; each mistake is one line."""

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from registered_parts import registries_restored

from recdistill import plugins
from recdistill.errors import InputError
from recdistill.plugins import load_plugins

#: A part, without which a module is no plugin.
PART = "from recdistill.registry import POLICIES\n\n\n@POLICIES.register('own')\ndef own(signals): ...\n"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test loads is forgotten afterwards."""
    monkeypatch.setattr(plugins, "_loaded", {})
    before = set(sys.modules)
    with registries_restored():
        yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_beside_the_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_the_user.py").write_text(PART + "VALUE = 1\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    (module,) = load_plugins("beside_the_user")
    assert module.VALUE == 1
    assert sys.path == path
    assert load_plugins(" beside_the_user , ") == [module]


def test_a_file_anywhere_is_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "from_a_file.py"
    file.write_text(PART + "VALUE = 2\n")
    (module,) = load_plugins(str(file))
    assert (module.VALUE, module.__name__) == (2, "from_a_file")
    assert load_plugins(f"{file},{file}") == [module, module]


def test_an_installed_package_can_declare_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_of_parts.py").write_text(PART + "VALUE = 3\n")
    metadata = tmp_path / "package_of_parts-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: package-of-parts\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[recdistill.plugins]\nmy-parts = package_of_parts\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [one.name for one in importlib.metadata.entry_points(group=plugins.GROUP)] == ["my-parts"]
    (module,) = load_plugins("my-parts")
    assert module.VALUE == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no_such_module", None, "plugin=no_such_module: there is no such module, in "),
        ("missing.py", None, "plugin=missing.py: there is no file "),
        ("wrong.py", "1 / 0\n", "plugin=wrong.py: cannot be imported (ZeroDivisionError: division by zero)"),
        ("exits.py", "import sys\nsys.exit(3)\n", "plugin=exits.py: cannot be imported (SystemExit: 3)"),
        ("empty.py", "", "plugin=empty.py: registers no part; write @STUDENTS.register(...), or that of another kind"),
        ("unwritten.py", "def f(:\n", "plugin=unwritten.py: cannot be imported (SyntaxError: "),
        ("json.py", "VALUE = 1\n", "plugin=json.py: a module named json is installed already; rename the file"),
    ],
)
def test_each_mistake_is_one_line(
    name: str, text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        load_plugins(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_folder_of_parts_that_is_no_package_is_told_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder_of_parts").mkdir()
    (tmp_path / "folder_of_parts" / "parts.py").write_text(PART)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"folder_of_parts: is a folder without __init__\.py and registers no part"
        ):
            load_plugins("folder_of_parts")
    (tmp_path / "folder_of_parts" / "__init__.py").write_text("from folder_of_parts import parts\n")
    assert [one.__name__ for one in load_plugins("folder_of_parts")] == ["folder_of_parts"]


def test_a_module_that_was_imported_before_registered_its_parts_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_before.py").write_text(PART)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("imported_before")
    assert load_plugins("imported_before") == [module]


def test_why_an_import_failed_stays_its_cause(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("1 / 0\n")
    with pytest.raises(InputError) as caught:
        load_plugins(str(tmp_path / "fails.py"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
