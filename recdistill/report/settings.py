"""What makes two runs the same but for their seed, and the shortest name that tells runs apart."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recdistill.config import STEPS, UPSTREAM, Option, option_table
from recdistill.config.lineage import compared_settings
from recdistill.registry import LOSS_TERMS, SOURCES, SPLITS, STUDENTS

Settings = Mapping[str, Any]

EVALUATED_STEPS = ("prepare", "backbone", "teacher", "distill", "map_items")
TITLES = {"prepare": "popularity"}
SHOWN_SETTINGS = 6
#: Digests of the parts that the data come from, as ``data source mine``.
OF_DATA = (f"{SOURCES.kind} ", f"{SPLITS.kind} ")
#: Settings of a run of ``backbone`` that every recommender has.
OF_ANY_STUDENT = ("student", "exclude_seen")
#: The revision of results that runs of recdistill 0.1 have too.
FIRST_REVISION = [1]
DIGEST, SHOWN_DIGEST = re.compile("[0-9a-f]{64}"), 8


def settings_of(
    step: str, values: Mapping[str, Any], digests: Mapping[str, str] | None = None, upstream: Settings | None = None
) -> Settings:
    """What a run's result depends on, the seed aside.

    The data are no part of it (runs of one comparison share their fingerprint), and neither are ids of upstream
    runs: instead come the upstream's own settings, with the step before the name, as in ``teacher.experts``.

    Args:
        step: a name of `EVALUATED_STEPS`.
        values: the run's ``config.json``; an option that it lacks has its default.
        digests: of the files that its options and parts are made of, see `digests_of`.
        upstream: settings of the run it started from; None takes them from ``values`` too.
    """
    unread = unread_settings(step, values)
    found = {
        name: value
        for name, value in compared_settings(STEPS[step], values, digests or {}).items()
        if name not in unread and not name.startswith(OF_DATA)
    }
    earlier = UPSTREAM.get(step)
    if earlier is not None:
        upstream = settings_of(earlier, values) if upstream is None else upstream
        found |= {f"{earlier}.{name}": value for name, value in upstream.items()}
    return found


def unread_settings(step: str, values: Mapping[str, Any]) -> set[str]:
    """Options without effect on a run's result.

    These are the data's, which the fingerprint stands for; those of parts that the run did not choose; and for a
    recommender of closed form those of training by gradient.
    """
    options = option_table(STEPS[step])
    given = {name: values.get(name, one.default) for name, one in options.items()}
    in_use = {f"{name}={value}" for name, value in given.items()}
    in_use |= {f"{name}>0" for name, value in given.items() if value}
    closed = step == "backbone" and given["student"] in closed_forms()

    def has_effect(one: Option) -> bool:
        if one.role == "data":
            return False
        if not one.parts:
            return not closed or one.name in OF_ANY_STUDENT
        # The weight of a loss term is always read; 0 says that the term is not in use.
        is_weight = one.parts[0].startswith(f"{LOSS_TERMS.kind} ")
        return is_weight or not in_use.isdisjoint(one.parts)

    return {name for name, one in options.items() if not has_effect(one)}


def closed_forms() -> tuple[str, ...]:
    """Names of the recommenders that are not trained by gradient."""
    return STUDENTS.names(gradient=False)


def digests_of(step: str, values: Mapping[str, Any], key_parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of a run's key that no known option holds: digests of files, options of a user's parts, the revision.

    Args:
        step: a name of `EVALUATED_STEPS`.
        values: the run's ``config.json``.
        key_parts: its ``key.json``; None for a run of recdistill 0.1, which kept no digests: there the path that an
            option names stands for the file.
    """
    table = option_table(STEPS[step])
    if key_parts is None:
        return {
            f"{name} content": values[name]
            for name, one in table.items()
            if one.metadata["content"] and one.role == "place" and values.get(name)
        }
    found = {name: value for name, value in key_parts["options"].items() if name not in table}
    if key_parts["revision"] != FIRST_REVISION:
        found["revision"] = ".".join(map(str, key_parts["revision"]))
    return found


def labels(steps: Sequence[str], settings: Sequence[Settings], names: Sequence[str] = ()) -> list[str]:
    """A label for each of several recommenders: its name, and the settings that tell it from others of its step.

    An option that one has and another has not does not tell them apart: what chose it does.

    Args:
        steps: of each.
        settings: of each.
        names: given by hand, '' where none was; then the step's title stands for it.
    """
    # What others made has a name, and no options that are known.
    telling: dict[str, list[str]] = {step: [] for step in steps}
    for step in set(steps) & STEPS.keys():
        same = [own for kind, own in zip(steps, settings, strict=True) if kind == step]
        options = option_table(STEPS[step])
        telling[step] = [
            name
            for name in dict.fromkeys(name for own in same for name in own)
            if len({own.get(name) for own in same if name in own or name not in options}) > 1
        ]
    titles = [name or TITLES.get(step, step) for name, step in zip(names or [""] * len(steps), steps, strict=True)]
    return [label(title, own, telling[step]) for title, step, own in zip(titles, steps, settings, strict=True)]


def label(title: str, settings: Settings, telling: Sequence[str]) -> str:
    """The title and the settings named in ``telling``, the first `SHOWN_SETTINGS` of them."""
    own = [name for name in telling if name in settings]
    shown = [f"{name}={shown_value(settings[name])}" for name in own[:SHOWN_SETTINGS]]
    rest = [f"and {len(own) - SHOWN_SETTINGS} more"] if len(own) > SHOWN_SETTINGS else []
    return " ".join([title, *shown, *rest])


def shown_value(value: Any) -> str:
    """A setting as an option is written; of a digest the head."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text[:SHOWN_DIGEST] if DIGEST.fullmatch(text) else text
