"""pyproject.toml, conda.yaml and constraints.txt name the same packages."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from small_data import write_csv
from tiny_llm import write_tiny_llm

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, Version]:
    """The version of every package in constraints.txt."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line.strip()).groups()
            assert canonicalize_name(name) not in found, f"{name} stands twice"
            found[canonicalize_name(name)] = Version(version)
    return found


def test_conda_installs_what_the_project_depends_on():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    python = [entry for entry in conda["dependencies"] if isinstance(entry, str) and entry.startswith("python")]
    assert python == [f"python{PROJECT['requires-python']}"]
    assert [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)] == [PROJECT["dependencies"]]


def test_constraints_satisfy_every_requirement_and_pin_exactly():
    known = pins()
    wanted = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        version = known.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(version), f"{requirement} is not {version}"
    assert {"torch", "transformers", "peft", "mlflow", "optuna"} <= set(known)


def test_every_imported_package_is_a_dependency():
    # Extras that a step asks for by name where they are missing.
    extras = [text for extra in ("onnx", "spark") for text in PROJECT["optional-dependencies"][extra]]
    declared = {canonicalize_name(Requirement(text).name) for text in [*PROJECT["dependencies"], *extras]}
    providers = packages_distributions()
    for path in (ROOT / "recdistill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in {name.split(".")[0] for name in named} - sys.stdlib_module_names - {"recdistill"}:
                found = providers.get(module, [module])
                assert declared & set(map(canonicalize_name, found)), f"{path}: {module}"


def test_pins_name_no_local_build():
    # '2.13.0+cpu' is on no package index that pip asks by default.
    assert [name for name, version in pins().items() if version.local] == []


def test_the_console_script_and_the_module_are_one():
    assert PROJECT["scripts"] == {"recdistill": "recdistill.__main__:main"}


def test_mlproject_names_the_conda_file():
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    assert project["name"] == PROJECT["name"]
    assert (ROOT / project["conda_env"]).is_file()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own in which the wheel is installed; the packages that it needs are this one's."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("recdistill", "sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("recdistill-*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # Its path alone: what that one has installed in place, as this checkout, is not found through it.
    (packages / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    return python.parent


@pytest.mark.slow
def test_the_wheel_runs_a_step_from_anywhere(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "RECDISTILL_CACHE": str(tmp_path / "cache"),
    }

    def told(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = told(str(installed / "python"), "-c", "import recdistill; print(recdistill.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert told(str(installed / "recdistill"), "--version") == f"recdistill {PROJECT['version']}\n"
    data = [f"--{name}={value}" for name, value in write_csv(tmp_path).items()]
    assert "30 users, 40 items" in told(str(installed / "recdistill"), "prepare", *data)
    # The search spaces and plans come with it.
    small = ["--trials=1", "--final_seeds=0", "--estimate=true", "--epochs=1"]
    assert "1 trials" in told(str(installed / "recdistill"), "sweep", *data, *small, "--llm", tiny(tmp_path))


def tiny(folder: Path) -> str:
    """A tiny LLM."""
    return str(write_tiny_llm(folder / "llm"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="pip install uv")
def test_uv_makes_the_environment_of_the_project(tmp_path: Path) -> None:
    """What MLflow asks uv for can be resolved under our constraints; nothing is installed."""
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    (wanted,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    (tmp_path / "requirements.txt").write_text("\n".join(wanted))
    command = ["uv", "pip", "compile", "--quiet", "requirements.txt", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"torch=={pins()['torch']}" in done.stdout


def test_the_citation_and_the_changes_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert [one["year"] for one in citation["references"]] == [2024, 2024, 2018]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", changes, re.MULTILINE)[0] == PROJECT["version"]
