"""``python -m recdistill.config.mlproject``: MLproject from the steps' options, so that no default stands twice."""

from pathlib import Path
from typing import Any

from recdistill.config.base import Config, option_table
from recdistill.config.steps import ALIASES, STEPS

HEAD = "# Written by `make mlproject` from recdistill/config, where the options are defined.\nname: recdistill\n\n"
HEAD += "conda_env: conda.yaml\n\nentry_points:\n"


def mlproject() -> str:
    """Text of the file."""
    entries = dict(STEPS) | {alias: STEPS[step] for alias, step in ALIASES.items()}
    return HEAD + "\n".join(entry_point(name, options) for name, options in entries.items())


def entry_point(name: str, options: type[Config]) -> str:
    """One entry point: its parameters with type and default, and its command."""
    table = option_table(options).values()
    lines = [f"  {name}:", "    parameters:"]
    lines += [f"      {one.name}: {{type: {kind_of(one.type)}, default: {text_of(one.default)}}}" for one in table]
    given = " ".join(f"--{one.name} {{{one.name}}}" for one in table)
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
