"""What of the code goes into a served model."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recdistill.config.own_files import part_digest
from recdistill.errors import InputError
from recdistill.registry import STUDENTS, Declaration
from recdistill.runs import shipped_code as module
from recdistill.runs.provenance import PACKAGE
from recdistill.runs.shipped_code import REQUIRED, plugin_files, requirements, ship_code

IMPORTED = """
import sys
sys.path.insert(0, sys.argv[1])
import recdistill.students.build, recdistill.students.serving
from recdistill.registry import STUDENTS
for name in STUDENTS.names():
    STUDENTS.get(name)
modules = {name.partition(".")[0] for name in sys.modules}
print(*(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "recdistill"), sep="\\n")
assert not modules & {"mlflow", "transformers", "peft", "optuna", "scipy"}, modules
"""


def test_every_recommender_of_ours_is_complete_in_what_is_shipped(tmp_path: Path) -> None:
    ship_code(tmp_path, "sasrec")
    command = [sys.executable, "-I", "-c", IMPORTED, str(tmp_path / "code")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) > len(STUDENTS.names())
    assert all(Path(file).is_relative_to(tmp_path / "code") for file in files)
    assert (tmp_path / "modules.json").read_text() == "[]\n"
    assert not (tmp_path / "code" / "recdistill" / "runs").exists()


ALL_IMPORTED = """
import importlib, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
for file in sorted(folder.rglob("*.py")):
    importlib.import_module(".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"))
"""


@pytest.mark.slow
def test_all_that_goes_along_with_a_users_file_can_be_imported(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text("from recdistill import STUDENTS, InputError, SelectionSignals, SequenceData\n")
    declared = {"mine": Declaration("mine", "mine", tmp_path / "mine.py")}
    monkeypatch.setattr(STUDENTS, "_declared", declared)
    ship_code(tmp_path / "model", "mine")
    assert (tmp_path / "model" / "modules.json").read_text() == '["mine"]\n'
    command = [sys.executable, "-I", "-c", ALL_IMPORTED, str(tmp_path / "model" / "code")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_a_model_needs_is_a_dependency_of_the_project() -> None:
    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(REQUIRED) <= {re.split(r"[<>=]", line)[0] for line in declared}
    assert [line.partition("==")[0] for line in requirements("sasrec")] == sorted(REQUIRED)


@pytest.mark.parametrize(
    ("module", "file", "expected"),
    [
        ("mine", "mine.py", {"mine.py": "mine.py", "beside.py": "beside.py"}),
        ("__main__", "mine.py", {"mine.py": "mine.py", "beside.py": "beside.py"}),
        ("pack.mine", "pack/mine.py", {"pack": "pack", "beside.py": "beside.py"}),
        ("pack.deep.mine", "pack/deep/mine.py", {"pack": "pack", "beside.py": "beside.py"}),
        ("pack", "pack/__init__.py", {"pack": "pack", "beside.py": "beside.py"}),
        ("pack.deep", "pack/deep/__init__.py", {"pack": "pack", "beside.py": "beside.py"}),
    ],
)
def test_the_users_code_that_goes_along(tmp_path: Path, module: str, file: str, expected: dict[str, str]) -> None:
    (tmp_path / "pack" / "deep").mkdir(parents=True)
    (tmp_path / file).write_text("import beside\nimport json\nimport torch\n")
    (tmp_path / "beside.py").write_text("import json\n")
    (tmp_path / "other.py").touch()
    found = plugin_files(Declaration("mine", module, tmp_path / file))
    assert found == {name: tmp_path / place for name, place in expected.items()}


def write_files(folder: Path, **texts: str) -> None:
    """Files by their names, ``__`` for the slash of a folder and ``_init`` for ``__init__``."""
    for name, text in texts.items():
        path = folder / (name.replace("__", "/").replace("_init", "__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_packages_beside_a_file_go_along_and_count(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        mine="import numpy, plain.signs\nfrom helpers.sign import SIGN\nfrom recdistill import STUDENTS\nimport empty",
        helpers___init="from helpers import sign",
        helpers__sign="import deeper\nSIGN = 1",
        deeper="",
        plain__signs="",
        # None of the user's: Python takes what is installed, ours, and a folder without code.
        numpy__core="",
        recdistill___init="",
        other___init="",
    )
    (tmp_path / "empty").mkdir()
    declared = Declaration("mine", "mine", tmp_path / "mine.py")
    assert set(plugin_files(declared)) == {"mine.py", "helpers", "deeper.py", "plain"}
    assert plugin_files(declared)["helpers"] == tmp_path / "helpers"
    before = part_digest(declared)
    for place in ("numpy/core.py", "recdistill/__init__.py", "other/__init__.py"):
        (tmp_path / place).write_text("changed = 1")
    assert part_digest(declared) == before
    for place in ("helpers/sign.py", "deeper.py", "plain/signs.py"):
        (tmp_path / place).write_text("SIGN = -1; import deeper, plain" if "sign" in place else "changed = 1")
        assert part_digest(declared) != before
        before = part_digest(declared)


def test_a_model_runs_with_the_packages_beside_its_plugin(tmp_path: Path, monkeypatch) -> None:
    write_files(tmp_path, mine="from helpers.sign import SIGN\n", helpers___init="", helpers__sign="SIGN = 1\n")
    monkeypatch.setattr(STUDENTS, "_declared", {"mine": Declaration("mine", "mine", tmp_path / "mine.py")})
    monkeypatch.setattr(module, "projects", lambda: {"helpers": "no such project"})
    ship_code(tmp_path / "model", "mine")
    assert "helpers" not in " ".join(requirements("mine"))
    assert (tmp_path / "model" / "code" / "helpers" / "sign.py").read_text() == "SIGN = 1\n"


def test_beside_an_installed_module_everything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine.py").write_text("import beside\n")
    (tmp_path / "beside.py").touch()
    assert plugin_files(Declaration("mine", "mine", tmp_path / "mine.py")) == {"mine.py": tmp_path / "mine.py"}


def test_what_is_written_in_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="student=mine: is defined in no file") as caught:
        plugin_files(Declaration("mine", "__main__", tmp_path))
    assert "\n" not in str(caught.value)
