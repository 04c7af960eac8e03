"""``python -m recdistill.config.mlproject``: the file MLproject from the steps' options, so that no default stands twice."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from recdistill.config import STEPS, Config

HEAD = "# Written by `make mlproject` from recdistill/config.py, where the options are defined.\nname: recdistill\n\n"
HEAD += "conda_env: conda.yaml\n\nentry_points:\n"


def mlproject() -> str:
    """Text of the file."""
    return HEAD + "\n".join(entry_point(name, options) for name, options in STEPS.items())


def entry_point(name: str, options: type[Config]) -> str:
    """One entry point: its parameters with type and default, and its command."""
    lines = [f"  {name}:", "    parameters:"]
    lines += [
        f"      {spec.name}: {{type: {kind_of(spec.type)}, default: {text_of(spec.default)}}}"
        for spec in fields(options)
    ]
    given = " ".join(f"--{spec.name} {{{spec.name}}}" for spec in fields(options))
    return "\n".join([*lines, f'    command: "python -m recdistill {name} {given}"']) + "\n"


def kind_of(kind: Any) -> str:
    """MLflow's name of a type; numbers of both sorts are its ``float``."""
    return "float" if kind in (int, float) else "string"


def text_of(default: Any) -> str:
    """A default as YAML; booleans and text as quoted text."""
    if isinstance(default, bool):
        return f'"{str(default).lower()}"'
    return f'"{default}"' if isinstance(default, str) else str(default)


if __name__ == "__main__":
    Path("MLproject").write_text(mlproject(), encoding="utf-8")
