"""What makes two runs the same but for their seed, and the shortest name that tells runs apart."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from recdistill.config import (
    StudentConfig,
    BaselineConfig,
    Config,
    DataConfig,
    DistillConfig,
    TeacherConfig,
    own_fields,
)

Settings = Mapping[str, bool | float | str]

STUDENT = [name for name in own_fields(StudentConfig, DataConfig) if name != "register"]
OWN_SETTINGS: dict[str, tuple[type[Config], list[str]]] = {
    "prepare": (DataConfig, []),
    "backbone": (BaselineConfig, [*STUDENT, "released"]),
    "teacher": (TeacherConfig, own_fields(TeacherConfig, DataConfig)),
    "distill": (DistillConfig, STUDENT + own_fields(DistillConfig, StudentConfig, TeacherConfig)),
}
UPSTREAM = {"teacher": "backbone", "distill": "teacher"}
EVALUATED_STEPS = tuple(OWN_SETTINGS)
TITLES = {"prepare": "popularity"}
SHOWN_SETTINGS = 6


def settings_of(step: str, params: Mapping[str, str], upstream: Settings | None = None) -> Settings:
    """The options that a run's result depends on, seeds aside.

    The data are no part of it (runs of one comparison share their fingerprint), and neither are ids of upstream
    runs: instead come the upstream's own settings, with the step before the name, as in ``teacher.experts``.

    Args:
        step: a name of `EVALUATED_STEPS`.
        params: the run's logged parameters, as text; an option that it lacks has its default.
        upstream: settings of the run it started from; None takes them from ``params`` too.
    """
    kind, names = OWN_SETTINGS[step]
    defaults = {spec.name: spec.default for spec in fields(kind)}
    found = {name: value_of(params.get(name), defaults[name]) for name in names if not name.endswith("_run_id")}
    earlier = UPSTREAM.get(step)
    if earlier is not None:
        upstream = settings_of(earlier, params) if upstream is None else upstream
        found |= {f"{earlier}.{name}": value for name, value in upstream.items()}
    return found


def value_of(text: str | None, default: Any) -> bool | float | str:
    """A logged parameter in the type of its default, so that 0.50 and 0.5 are one value."""
    if text is None:
        return default if isinstance(default, bool | str) else float(default)
    if isinstance(default, bool):
        return text.strip().lower() == "true"
    if isinstance(default, int | float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def labels(steps: Sequence[str], settings: Sequence[Settings], names: Sequence[str] = ()) -> list[str]:
    """A label for each of several recommenders: its name, and the settings that tell it from others of its step.

    Args:
        steps: of each.
        settings: of each.
        names: given by hand, '' where none was; then the step's title stands for it.
    """
    telling = {}
    for step in set(steps):
        same = [own for kind, own in zip(steps, settings, strict=True) if kind == step]
        known = dict.fromkeys(name for own in same for name in own)
        telling[step] = [name for name in known if len({own.get(name) for own in same}) > 1]
    titles = [name or TITLES.get(step, step) for name, step in zip(names or [""] * len(steps), steps, strict=True)]
    return [label(title, own, telling[step]) for title, step, own in zip(titles, steps, settings, strict=True)]


def label(title: str, settings: Settings, telling: Sequence[str]) -> str:
    """The title and the settings named in ``telling``, the first `SHOWN_SETTINGS` of them."""
    own = [name for name in telling if name in settings]
    shown = [f"{name}={shown_value(settings[name])}" for name in own[:SHOWN_SETTINGS]]
    rest = [f"and {len(own) - SHOWN_SETTINGS} more"] if len(own) > SHOWN_SETTINGS else []
    return " ".join([title, *shown, *rest])


def shown_value(value: bool | float | str) -> str:
    """A setting as an option is written."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
