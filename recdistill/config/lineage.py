"""What follows from the roles of options: a run's key, what makes runs one recommender, what a sweep may search.

Nothing else lists options. A path is a place: where its option has ``content``, a digest of what lies there stands for
it. Options that belong to the step before (`Config.upstream`) are left to that step's own key.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from recdistill.config.base import MENDED, Config, option_table
from recdistill.config.contents import content_digest, existing
from recdistill.config.option import Option, Role
from recdistill.config.own_files import part_digest
from recdistill.config.steps import revision
from recdistill.registry import METRICS

KEY_LENGTH = 20
KEY_ROLES: tuple[Role, ...] = ("data", "result", "seed", "budget")
COMPARED_ROLES: tuple[Role, ...] = ("data", "result", "budget")
NEAR_ROLES: tuple[Role, ...] = ("data", "result")
SEARCHED_ROLES: tuple[Role, ...] = ("result", "budget")


def own_options(kind: type[Config], values: Mapping[str, Any] | None = None) -> dict[str, Option]:
    """The options of a step's own work: all but those that are there only to find or make the run it starts from.

    ``values`` are those of a run, by which a step may read more, see `Config.read_of_upstream`; None for defaults.
    """
    read = kind.read_of_upstream(values or {})
    return {name: one for name, one in option_table(kind).items() if name in read or set(one.owners) != {kind.upstream}}


def chosen(config: Config, roles: Iterable[Role], options: Mapping[str, Option] | None = None) -> dict[str, Any]:
    """The values of the step's own options in use that have one of these roles, by name; contents for paths.

    Raises InputError where a file that an option names cannot be read.
    """
    values = config.values()
    options = own_options(type(config), values) if options is None else options
    found: dict[str, Any] = {}
    for name, one in options.items():
        if name not in values:
            continue
        path = existing(one, values[name]) if one.metadata["content"] else None
        if path is not None:
            found[f"{name} content"] = content_digest(name, path)
        elif one.role in roles:
            found[name] = values[name]
    return found


def plugin_contents(config: Config) -> dict[str, str]:
    """A digest of the user's files that each part of the step's own work comes from, by name of the part."""
    own = own_options(type(config), config.values())
    parts = [(registry, name) for option, registry, name in config.parts() if option in own]
    if config.weighted is not None:
        parts += [(config.weighted, name) for name in config.parts_in_use_of(config.weighted)]
    found = {}
    for registry, name in parts:
        declared = registry.declaration(name)
        if not declared.is_ours:
            found[f"{registry.kind} {name}"] = part_digest(declared)
    return found


def metric_contents() -> dict[str, str]:
    """A digest of the user's files that each registered metric of theirs comes from, by name of the part."""
    declared = [METRICS.declaration(name) for name in METRICS.names()]
    return {f"{METRICS.kind} {one.name}": part_digest(one) for one in declared if not one.is_ours}


def key_parts(step: str, config: Config, fingerprint: str, upstream: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All that a run's result depends on, as JSON values.

    Args:
        step: its name.
        config: its options.
        fingerprint: of the data.
        upstream: keys of the runs it starts from, by step; where there are none, the runs that options name count.
    """
    roles = KEY_ROLES if upstream else (*KEY_ROLES, "upstream")
    return {
        "step": step,
        "revision": revision(step),
        "options": chosen(config, roles) | plugin_contents(config) | config.also_in_key(),
        "fingerprint": fingerprint,
        "upstream": dict(upstream or {}),
    }


def digest(parts: Mapping[str, Any]) -> str:
    """A short name of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def run_key(
    step: str,
    config: Config,
    fingerprint: str,
    upstream: Mapping[str, str] | None = None,
    contents: Mapping[str, Any] | None = None,
) -> str:
    """What two runs share that must have the same result; see `key_parts`.

    ``contents`` are what else the result depends on, as JSON values by a name that is no option's.
    """
    parts = key_parts(step, config, fingerprint, upstream)
    return digest(parts | {"options": parts["options"] | dict(contents or {})})


def near_key(step: str, config: Config, fingerprint: str, contents: Mapping[str, Any] | None = None) -> str:
    """What runs share that differ only in seed, budgets and the runs they start from; ``contents`` as of `run_key`."""
    mended = {name: value for name, value in config.also_in_key().items() if name == MENDED}
    options = chosen(config, NEAR_ROLES) | plugin_contents(config) | mended | dict(contents or {})
    return digest({"step": step, "revision": revision(step), "options": options, "fingerprint": fingerprint})


def compared_settings(kind: type[Config], values: Mapping[str, Any], contents: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which runs are one recommender: all that a key has but the seed.

    Args:
        kind: options of the step.
        values: a run's ``config.json``; an option that it lacks has its default.
        contents: digests that the run kept of files, by ``<option> content`` and ``<kind of part> <name>``.
    """
    found: dict[str, Any] = {}
    for name, one in own_options(kind, values).items():
        if one.metadata["content"] and f"{name} content" in contents:
            continue
        if one.role in COMPARED_ROLES:
            found[name] = one.canonical(values.get(name, one.default))
    return found | dict(contents)


def searchable(kind: type[Config]) -> list[str]:
    """The options that a sweep may search: those that change the result, or how much is done."""
    return [name for name, one in option_table(kind).items() if one.role in SEARCHED_ROLES]
