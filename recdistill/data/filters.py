"""Which interactions are kept: each once, and of users and items that have enough of them."""

from dataclasses import replace

import numpy as np

from recdistill.config.data import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.notices import notice
from recdistill.data.samples import Int64Array
from recdistill.data.stable_order import WholeNumbers, stable_order
from recdistill.errors import InputError


def without_repeats(interactions: Interactions) -> Interactions:
    """Leave out rows that stand twice: of the same user, item and time only the first is kept, and a line says so."""
    columns = {name: getattr(interactions, name) for name in ("user", "item", "timestamp")}
    order = stable_order(*columns.values())
    again = np.ones(len(order), dtype=bool)[1:]
    for column in columns.values():
        ordered = column[order]
        again &= ordered[1:] == ordered[:-1]
    first = np.ones(len(order), dtype=bool)
    first[order[1:][again]] = False
    if first.all():
        return interactions
    notice(
        f"{np.sum(~first):,} of {len(first):,} interactions of {interactions.source} stand twice (same user, item and "
        "time) and are left out"
    )
    return replace(interactions, **{name: column[first] for name, column in columns.items()})


def keep_active(interactions: Interactions, config: DataConfig, least: int = 0) -> Interactions:
    """Leave out items and users of too few interactions, and keep the first ``max_users`` of the others (0: all).

    Items with fewer than ``min_item_interactions`` go first, then users with fewer than ``min_interactions``; with a
    ``k_core`` both, until every user and item left has at least that many. A line says how many are left out. The
    catalogue stays whole where nothing is asked of items.

    Args:
        interactions: N of them.
        config: the options.
        least: interactions of a user that the split needs.

    Raises:
        InputError: no user is left. One line.
    """
    of_user = max(config.min_interactions, config.k_core, least)
    of_item = max(config.min_item_interactions, config.k_core)
    kept = np.ones(len(interactions), dtype=bool)
    before = -1
    while before != (before := int(kept.sum())):
        active_items = counts(interactions.item[kept], len(interactions.item_ids)) >= of_item
        kept &= active_items[interactions.item]
        active_users = counts(interactions.user[kept], len(interactions.user_ids)) >= max(of_user, 1)
        kept &= active_users[interactions.user]
        if not config.k_core:
            break
    said = ", ".join(why(config, least))
    if not kept.any():
        most = int(counts(interactions.user, len(interactions.user_ids)).max(initial=0))
        raise InputError(
            f"{said or 'the data'}: leaves no user of {interactions.source}, "
            f"where the most active has {most} interactions; {what_helps(config, least)}"
        )
    if not kept.all():
        items = f" and {np.sum(~active_items):,} of {len(active_items):,} items" if of_item else ""
        notice(
            f"{interactions.source}: left out {np.sum(~active_users):,} of {len(active_users):,} users{items}, with "
            f"{np.sum(~kept):,} of {len(kept):,} interactions ({said})"
        )
    users = np.flatnonzero(active_users)
    users = users[: config.max_users] if config.max_users else users
    if kept.all() and active_items.all() and len(users) == len(active_users):
        return interactions
    return chosen(interactions, users, np.flatnonzero(active_items), kept)


def why(config: DataConfig, least: int) -> list[str]:
    """The options that leave something out, and the split where it needs more than they do."""
    names = ("min_item_interactions", "min_interactions", "k_core")
    said = [f"{name}={getattr(config, name)}" for name in names if getattr(config, name)]
    if least > max(config.min_interactions, config.k_core):
        said.append(f"split={config.split} needs {least} of a user")
    return said


def what_helps(config: DataConfig, least: int) -> str:
    """What a message advises where no user is left: what a split needs of a user is no option that could be lowered."""
    named = [name for name in ("min_item_interactions", "min_interactions", "k_core") if getattr(config, name)]
    if not named:
        return f"give users with at least {least} interactions, or another split="
    return f"lower {' or '.join(named)}, or give users with longer histories"


def counts(numbers: WholeNumbers, length: int) -> Int64Array:
    """How often each of 0 .. length-1 stands in ``numbers``."""
    return np.bincount(numbers, minlength=length).astype(np.int64)


def chosen(interactions: Interactions, users: Int64Array, items: Int64Array, kept: np.ndarray) -> Interactions:
    """The interactions ``kept`` [N] of these users with these items, both numbered anew in their order."""
    new_user, new_item = (np.full(length, -1) for length in (len(interactions.user_ids), len(interactions.item_ids)))
    new_user[users], new_item[items] = np.arange(len(users)), np.arange(len(items))
    kept = kept & (new_user[interactions.user] >= 0)
    return Interactions(
        user=new_user[interactions.user[kept]],
        item=new_item[interactions.item[kept]],
        timestamp=interactions.timestamp[kept],
        user_ids=tuple(interactions.user_ids[position] for position in users),
        item_ids=tuple(interactions.item_ids[position] for position in items),
        titles=tuple(interactions.titles[position] for position in items),
        source=interactions.source,
        item_columns={
            name: tuple(texts[position] for position in items) for name, texts in interactions.item_columns.items()
        },
    )
