"""What of the code goes into a served model."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recdistill.errors import InputError
from recdistill.registry import STUDENTS, Declaration
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
        ("pack.mine", "pack/mine.py", {"pack": "pack"}),
        ("pack.deep.mine", "pack/deep/mine.py", {"pack": "pack"}),
        ("pack", "pack/__init__.py", {"pack": "pack"}),
        ("pack.deep", "pack/deep/__init__.py", {"pack": "pack"}),
    ],
)
def test_the_users_code_that_goes_along(tmp_path: Path, module: str, file: str, expected: dict[str, str]) -> None:
    (tmp_path / "pack" / "deep").mkdir(parents=True)
    (tmp_path / file).write_text("import beside\nimport json\nimport torch\n")
    (tmp_path / "beside.py").write_text("from mine import something\n")
    (tmp_path / "other.py").touch()
    found = plugin_files(Declaration("mine", module, tmp_path / file))
    assert found == {name: tmp_path / place for name, place in expected.items()}


def test_beside_an_installed_module_everything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine.py").write_text("import beside\n")
    (tmp_path / "beside.py").touch()
    assert plugin_files(Declaration("mine", "mine", tmp_path / "mine.py")) == {"mine.py": tmp_path / "mine.py"}


def test_what_is_written_in_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="student=mine: is defined in no file") as caught:
        plugin_files(Declaration("mine", "__main__", tmp_path))
    assert "\n" not in str(caught.value)
