"""pyproject.toml, conda.yaml and constraints.txt name the same packages."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

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
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    providers = packages_distributions()
    for path in (ROOT / "recdistill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in {name.split(".")[0] for name in named} - sys.stdlib_module_names - {"recdistill"}:
                assert declared & {canonicalize_name(name) for name in providers[module]}, f"{path}: {module}"


def test_pins_name_no_local_build():
    # '2.13.0+cpu' is on no package index that pip asks by default.
    assert [name for name, version in pins().items() if version.local] == []


def test_the_console_script_and_the_module_are_one():
    assert PROJECT["scripts"] == {"recdistill": "recdistill.__main__:main"}


def test_mlproject_names_the_conda_file():
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    assert project["name"] == PROJECT["name"]
    assert (ROOT / project["conda_env"]).is_file()
