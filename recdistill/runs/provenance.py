"""The code that makes a run: commit, uncommitted changes and package versions, and how two such states differ."""

import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PACKAGES = ("recdistill", "torch", "transformers", "peft", "mlflow", "optuna", "numpy", "pandas")
SHOWN = 10  # characters of a commit in a message


@dataclass(frozen=True)
class CodeState:
    """The code and the packages that a process runs, or that made a run.

    Attributes:
        commit: of the package's checkout; empty where there is none.
        changes: uncommitted changes as a diff.
        versions: of Python and of the packages that results depend on.
    """

    commit: str
    changes: str
    versions: Mapping[str, str]


@functools.cache
def code_at_hand() -> CodeState:
    """The state of this process, read once: what is edited later is not what was imported."""
    # An installed package may lie within the checkout of another project, whose commits are not its own.
    commit = git("rev-parse", "HEAD") if git("ls-files", "__init__.py") else ""
    return CodeState(commit, git("diff", "HEAD") if commit else "", versions())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):  # code that is run without being installed
            found[name] = importlib.metadata.version(name)
    return found


def git(*arguments: str) -> str:
    """Output of a git command in the package's folder, empty where it fails."""
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def differences(made: CodeState, here: CodeState) -> list[str]:
    """In words, how the code that made a run differs from the code at hand; empty where it does not."""
    found = []
    if made.commit != here.commit:
        found.append(f"commit {made.commit[:SHOWN] or 'unknown'}, here {here.commit[:SHOWN] or 'unknown'}")
    elif made.changes != here.changes:
        found.append("other uncommitted changes")
    found += [
        f"{name} {made.versions[name]}, here {version}"
        for name, version in here.versions.items()
        if made.versions.get(name, version) != version
    ]
    return found
