"""The name of a run: what it is, what was asked of it beside the defaults, and its seed."""

from collections.abc import Mapping
from typing import Any

from recdistill.config.base import Config, option_table
from recdistill.config.lineage import own_options
from recdistill.config.option import Option
from recdistill.config.teacher import reads_llm
from recdistill.registry import STUDENTS

MOST = 60
BETWEEN = " · "
#: Roles of the options that a name tells.
TOLD = ("data", "result", "budget")
#: Options that a name tells at their defaults, too.
ALWAYS = {"distill": ("lam",), "teacher": ("token_budget",)}
#: How a name tells an option where it is not by the option's own name.
TOLD_AS = {"token_budget": "{} tokens"}
#: Steps whose seed is told where it is another than the default alone.
SEED_AT_DEFAULT_UNTOLD = ("teacher", "compare", "promote")
#: What each step's run is called, from its options.
CALLED = {
    "prepare": "data {dataset}",
    "backbone": "{student}",
    "teacher": "teacher {llm}",
    "distill": "{student} distilled",
    "main": "main {dataset}",
    "worth": "worth {dataset}",
    "sweep": "sweep {space}",
    "study": "study {plan}",
    "compare": "compare {metric}",
    "map_items": "new items by {views}",
    "promote": "promote {name}",
}


def run_name(step: str, config: Config) -> str:
    """At most `MOST` characters, such as ``sasrec distilled · lam 0.5 · seed 1``.

    Options that would make it longer are left out, those that help lists last first.
    """
    values = config.values()
    pattern = CALLED.get(step, step)
    # A teacher behind a server is called by the model there, one without an LLM by its kind.
    without = "teacher" in values and not reads_llm(values["teacher"])
    of_teacher = values.get("endpoint_model") or values.get("teacher" if without else "llm")
    known = values | {"llm": of_teacher}
    head = pattern.format_map({name: short(value) for name, value in known.items()}).strip()
    if step == "backbone" and values["student"] in STUDENTS.names(gradient=True):
        head += " undistilled"
    seed = f"seed {values['seed']}" if "seed" in values else ""
    if step in SEED_AT_DEFAULT_UNTOLD and values.get("seed") == option_table(type(config))["seed"].default:
        seed = ""
    told = [
        TOLD_AS.get(name, f"{name} {{}}").format(short(values[name]))
        for name, one in own_options(type(config), values).items()
        if name in values and "{" + name + "}" not in pattern and tells(step, one, values[name])
    ]
    return fitting(head, told, seed)


def changes_name(head: str, values: Mapping[str, Any]) -> str:
    """A name that tells values, such as ``trial 3 · lam 0.5 · alpha 0.1``: of a sweep's trial, what it tries."""
    return fitting(head, [f"{name} {short(value)}" for name, value in values.items()], "")


def tells(step: str, one: Option, value: Any) -> bool:
    """Whether a name tells the value of this option."""
    return one.name in ALWAYS.get(step, ()) or (one.role in TOLD and value != one.default)


def fitting(head: str, told: list[str], seed: str) -> str:
    """Head, as many options as there is room for, and seed."""
    kept = list(told)
    while True:
        name = BETWEEN.join([head, *kept, *([seed] if seed else [])])
        if len(name) <= MOST or not kept:
            return name if len(name) <= MOST else name[: MOST - 1] + "…"
        kept.pop()


def short(value: Any) -> str:
    """A value as a name tells it: 80000 is 80k, a path its last part.

    >>> short(80_000), short(0.5), short(True), short("/models/llama-2/")
    ('80k', '0.5', 'true', 'llama-2')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 1000 and value % 1000 == 0:
        return f"{value // 1_000_000}M" if value % 1_000_000 == 0 else f"{value // 1000}k"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or text
