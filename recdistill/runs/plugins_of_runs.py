"""The user's modules that a finished run was made with: imported where a part is missing, known by their content."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from recdistill.config.base import option_table
from recdistill.config.own_files import part_digest
from recdistill.config.steps import STEPS
from recdistill.errors import InputError
from recdistill.plugins import load_plugins
from recdistill.registry import GATES, STUDENTS, TEACHERS
from recdistill.runs.finished_runs import options_of_run
from recdistill.runs.outbox import LostStoreError
from recdistill.runs.run import KEY_FILE, StepRun

#: Kinds of parts whose code computes again where a finished run's student or teacher is used.
COMPUTING = (STUDENTS, TEACHERS, GATES)


def options_with_plugins(
    run_id: str, steps: Iterable[str], option: str = "run_id"
) -> tuple[StepRun, str, dict[str, Any]]:
    """As `options_of_run`, with the parts that the options name at hand.

    Where one is not registered, the ``plugin`` that the run was made with is imported. Raises InputError, one line,
    where that cannot be or does not have the part.
    """
    run, step, values = options_of_run(run_id, steps, option)
    missing = missing_parts(step, values)
    if not missing:
        return run, step, values
    plugin = str(values.get("plugin", ""))
    said = f"{option}={run_id}: was made with {missing[0]}, a part of "
    if not plugin:
        raise InputError(f"{said}a module of yours; give it as plugin=")
    try:
        load_plugins(plugin)
    except InputError as error:
        raise InputError(f"{said}plugin={plugin}; give plugin= with the place where it lies now ({error})") from None
    missing = missing_parts(step, values)
    if missing:
        raise InputError(f"{said}plugin={plugin}, which has no {missing[0]} now; give plugin= that has it")
    return run, step, values


def missing_parts(step: str, values: Mapping[str, Any]) -> list[str]:
    """The parts that a run's options name and nobody has registered, as ``student=mean``."""
    found = []
    for name, one in option_table(STEPS[step]).items():
        registry, value = one.metadata["choices"], one.canonical(values.get(name, one.default))
        if registry is not None and value != one.default:
            found += [f"{name}={part}" for part in one.named(value) if part not in registry]
    return found


def same_code(run: StepRun) -> dict[str, str]:
    """Digests of the user's files that the run's student or teacher computes with, by kind and name of the part.

    They are those that the run's ``key.json`` has, where the part is registered now. Raises InputError, one line, where
    a part has another content now: then the same weights would give other numbers.
    """
    kept = code_of_run(run)
    for registry in COMPUTING:
        for name in registry.names():
            part = f"{registry.kind} {name}"
            if part in kept and part_digest(registry.declaration(name)) != kept[part]:
                raise InputError(
                    f"run {run.run_id}: its {part} is no longer the code that it was trained with "
                    f"({registry.declaration(name).file.name}); give plugin= with that code, or train again"
                )
    return kept


def code_of_run(run: StepRun) -> dict[str, str]:
    """What a run's key has of the user's parts of `COMPUTING`; empty of a run of recdistill 0.1, which kept no key."""
    try:
        text = run.artifact(KEY_FILE).read_text(encoding="utf-8")
    except LostStoreError:
        raise
    except InputError:
        return {}
    try:
        options = dict(json.loads(text)["options"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"run {run.run_id}: its {KEY_FILE} is damaged; run that step again") from None
    kinds = tuple(f"{registry.kind} " for registry in COMPUTING)
    return {name: value for name, value in options.items() if name.startswith(kinds) and isinstance(value, str)}
