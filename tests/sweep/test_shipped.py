"""Search spaces that come with the package: found by name in a checkout, and in a wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recdistill.config import SweepConfig
from recdistill.errors import InputError
from recdistill.steps.study import config_of_cell
from recdistill.study.plan import read_plan
from recdistill.sweep import shipped
from recdistill.sweep.shipped import plan_path, shipped_plans, shipped_spaces, space_path
from recdistill.sweep.space_file import read_space

ROOT = Path(__file__).parents[2]
NAMES = ["distill", "new_items", "quick", "students", "teacher"]
PLANS = ["study", "study_queries"]


def test_each_space_has_the_name_of_its_file() -> None:
    assert list(shipped_spaces()) == NAMES
    assert shipped_spaces()["quick"].samefile(ROOT / "sweeps" / "quick.yaml")
    assert SweepConfig().space in NAMES


@pytest.mark.parametrize("name", PLANS)
def test_each_plan_can_be_read_and_its_options_used(name: str) -> None:
    assert list(shipped_plans()) == PLANS
    plan = read_plan(plan_path(name))
    assert {cell.row for cell in plan.cells} == set(plan.rows)
    for cell in plan.cells:
        config_of_cell(cell, {option: "" for option in cell.of})


def test_a_space_is_a_name_or_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert read_space("quick").parameters == read_space("sweeps/quick.yaml").parameters
    copy = shutil.copy(ROOT / "sweeps" / "quick.yaml", tmp_path / "mine.yaml")
    assert space_path(str(copy)) == Path(copy)


def test_a_name_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError) as caught:
        space_path("quikc")
    assert str(caught.value) == (
        "space=quikc: there is no such file or space; give a file, or one of distill, new_items, quick, students, "
        "teacher (nearest: quick)"
    )


def test_an_installed_package_reads_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").touch()
    monkeypatch.setattr(shipped, "INSTALLED", tmp_path)
    assert shipped_spaces() == {"mine": tmp_path / "mine.yaml"}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_pip_installs_has_the_spaces(tmp_path: Path, kind: str) -> None:
    """A wheel of the packages that matter here, made of the checkout or of its source distribution."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "sweeps", source / "sweeps")
    shutil.copytree(ROOT / "recdistill" / "sweep", source / "recdistill" / "sweep")
    shutil.copy(ROOT / "recdistill" / "__init__.py", source / "recdistill")
    if kind == "sdist":
        archive = built(source, "build_sdist", tmp_path)
        shutil.unpack_archive(archive, tmp_path)
        source = archive.with_name(archive.name.removesuffix(".tar.gz"))
    with zipfile.ZipFile(built(source, "build_wheel", tmp_path)) as wheel:
        inside = {name for name in wheel.namelist() if name.endswith(".yaml")}
        assert inside == {f"recdistill/sweep/spaces/{name}.yaml" for name in (*NAMES, *PLANS)}
        text = wheel.read("recdistill/sweep/spaces/quick.yaml")
    assert text == (ROOT / "sweeps" / "quick.yaml").read_bytes()


def built(source: Path, what: str, folder: Path) -> Path:
    """What setuptools builds of a folder, as pip has it do."""
    code = f"import setuptools.build_meta as backend; print(backend.{what}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    return folder / done.stdout.splitlines()[-1]
