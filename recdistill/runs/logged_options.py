"""Which options a run shows as parameters: those that made its numbers, and no others.

The options of the run before stand with its name as a prefix, as ``teacher.token_budget``: as that run used them,
whatever this one's command said. ``mlflow run`` logs MLproject's defaults as they are written there, before our code
starts, and MLflow changes no parameter: where such a text is not what was used, ``used.<name>`` says what was.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import mlflow

from recdistill.config import STEPS, Config, option_table
from recdistill.config.lineage import KEY_ROLES, own_options
from recdistill.errors import InputError
from recdistill.runs.outbox import post, read
from recdistill.runs.run import CONFIG_FILE, StepRun
from recdistill.runs.writes import batch

USED = "used."


def used_options(config: Config, upstream: Mapping[str, StepRun], left_out: Collection[str] = ()) -> dict[str, Any]:
    """The options in use of a step's own work, and those of the runs that it started from.

    Args:
        config: of the step.
        upstream: those runs, by step; imported ones, which have no id, have no options.
        left_out: options that have no one value here, as those that a sweep searches.
    """
    values = config.values()
    found = {
        name: values[name] for name in own_options(type(config), values) if name in values and name not in left_out
    }
    for step, run in upstream.items():
        if run.run_id and step in STEPS:
            found |= {f"{step}.{name}": value for name, value in made_with(run, step).items()}
    return found


def made_with(run: StepRun, step: str) -> dict[str, Any]:
    """The options that a finished run's result depends on, but the data's; none where ``config.json`` is gone."""
    try:
        values = json.loads(run.artifact(CONFIG_FILE).read_text(encoding="utf-8"))
    except (InputError, OSError, ValueError):
        return {}
    own = own_options(STEPS[step])
    roles = set(KEY_ROLES) - {"data"}
    return {name: value for name, value in values.items() if name in own and own[name].role in roles}


def log_options(run_id: str, config: Config, options: Mapping[str, Any]) -> None:
    """Log options as parameters, beside what ``mlflow run`` has logged of them already."""
    known = read(lambda: mlflow.get_run(run_id)).data.params
    table = option_table(type(config))
    logged = {}
    for name, value in options.items():
        if name not in known:
            logged[name] = value
        elif name in table and not same(table[name].read, known[name], value):
            logged[USED + name] = value
    post(batch(run_id, params=logged))


def same(read: Any, text: str, value: Any) -> bool:
    """Whether a logged text stands for the value that was used."""
    try:
        return bool(read(text) == value)
    except InputError:
        return False
