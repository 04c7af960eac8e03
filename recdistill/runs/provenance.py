"""What produced a run: a key of its settings, data and code, and the versions at hand."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "mlflow", "optuna", "numpy", "pandas")
KEY_LENGTH = 20


def code_hash(parts: Iterable[str]) -> str:
    """SHA-256 over the Python files of these folders and files of the package, by path inside it."""
    digest = hashlib.sha256()
    for part in sorted(set(parts)):
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file.relative_to(PACKAGE)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def run_key(step: str, settings: Mapping[str, Any], code: Iterable[str], upstream: Mapping[str, str]) -> str:
    """What two runs share that must have the same result.

    Args:
        step: name of the step.
        settings: every option that the result depends on, and the data's fingerprint.
        code: folders and files of the package that the step runs.
        upstream: keys of the runs it starts from, by step.
    """
    described = [step, dict(settings), code_hash(code), dict(upstream)]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | found


def git_state() -> tuple[str, str]:
    """Commit of the package's checkout and its uncommitted changes as a diff; empty where there is none."""
    commit = git("rev-parse", "HEAD")
    return commit, git("diff", "HEAD") if commit else ""


def git(*arguments: str) -> str:
    """Output of a git command in the package's folder, empty where it fails."""
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
