"""From the options of the data to its samples."""

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from recdistill.config.data import DataConfig
from recdistill.data.filters import counts, keep_active, without_repeats
from recdistill.data.fingerprint import fingerprint
from recdistill.data.interactions import Interactions, checked_interactions
from recdistill.data.new_items import draw_new_items, hold_out_items, items_without_target
from recdistill.data.notices import notice
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.splits.order import Parts
from recdistill.errors import InputError
from recdistill.freed_memory import give_back_freed_memory
from recdistill.registry import SOURCES, SPLITS, Registry

#: Above this share of targets that come again, leaving seen items out of rankings is worth a word.
MUCH_SEEN = 0.01
#: Options that leave out users and items (`data.filters`), so that others of a user's interactions are the last ones.
FILTERS = ("min_interactions", "min_item_interactions", "k_core", "max_users")
#: Options that mean nothing where the files came split, and their defaults.
OF_SPLITTING = (*FILTERS, "split", "new_items", "new_items_seed")
#: The default split of before: runs of then have it among their options, on files that came split, too.
EARLIER_SPLIT = "leave-one-out"


def load_data(config: DataConfig) -> SequenceData:
    """Read and split a data set.

    Items that nobody interacted with stay in the catalogue. Raises InputError, one line, for bad files or options.
    """
    found = read_data(config)
    if isinstance(found, SequenceData):
        refuse_splitting(config)
        data = found
    else:
        data = split_data(found, config)
        del found
        give_back_freed_memory()
    share = data.seen_target_share() if config.exclude_seen else 0.0
    if share > MUCH_SEEN:
        notice(
            f"{share:.1%} of all targets of {data.name} are in their own history already and count "
            "as misses, for rankings leave seen items out; exclude_seen=false is for data in which items come again"
        )
    return data


def read_data(config: DataConfig) -> Interactions | SequenceData:
    """Read a data set: interactions that are to be split, or what came split.

    Raises InputError, one line, for bad files or options.
    """
    if config.columns and not SOURCES.declaration(config.dataset).about.get("columns"):
        raise InputError(f"columns={config.columns}: {config.dataset} files have names of their own; leave it out")
    with SOURCES.calling(config.dataset):
        found = call_part(SOURCES, config.dataset, config, config)
    if not SOURCES.is_ours(config.dataset) and not isinstance(found, SequenceData):
        found = checked_interactions(found, config.dataset)
    # Reading holds more than it leaves: the codes and a part of the file.
    give_back_freed_memory()
    return found  # type: ignore[no-any-return]


def refuse_splitting(config: DataConfig) -> None:
    """Raise InputError where an option says how to split, for files that came split."""
    kind = SPLITS.options(config.split)
    defaults = {name: getattr(DataConfig(), name) for name in OF_SPLITTING}
    defaults |= {spec.name: spec.default for spec in fields(kind)} if kind is not None else {}
    for name, default in defaults.items():
        given = config.value(name)
        if given != default and (name, given) != ("split", EARLIER_SPLIT):
            raise InputError(
                f"{name}={given}: {config.dataset} files are split already and name no users; leave it out"
            )


def call_part(registry: Registry, name: str, config: DataConfig, given: Any) -> Any:
    """Call a source or a split with ``given``, and with its own options where it is registered with some."""
    own = config.of_part(registry, name)
    part = registry.get(name)
    return part(given) if own is None else part(given, own)


def split_data(interactions: Interactions, config: DataConfig) -> SequenceData:
    """Leave out repeats, users and items, split the others, and take out drawn new items.

    Users with fewer interactions than the split is registered to need (``least``) are left out too. Raises InputError
    where a part is empty.
    """
    least = SPLITS.declaration(config.split).about.get("least", 0)
    kept = keep_active(without_repeats(interactions), config, least)
    parts = called_split(kept, config)
    refuse_empty(parts, f"{kept.source}: split={config.split}")
    num_items = len(kept.titles)
    if config.new_items:
        new_validation, new_test = draw_new_items(counts(kept.item, num_items), config.new_items, config.new_items_seed)
        parts = hold_out_items(parts, new_validation, new_test, num_items)
        refuse_empty(parts, f"{kept.source}: new_items={config.new_items}")
    else:
        new_validation = new_test = items_without_target(parts[0], num_items)
    drawn = (new_validation, new_test) if config.new_items else ()
    own = config.of_part(SPLITS, config.split)
    return SequenceData(
        name=config.dataset,
        split=config.split,
        num_items=num_items,
        titles=kept.titles,
        item_ids=kept.item_ids,
        user_ids=kept.user_ids,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        fingerprint=fingerprint(kept.item_ids, kept.titles, parts, drawn),
        item_columns=kept.item_columns,
        new_validation=new_validation,
        new_test=new_test,
        splitting={"split": config.split}
        | ({} if own is None else asdict(own))
        | {name: getattr(config, name) for name in FILTERS},
    )


def called_split(interactions: Interactions, config: DataConfig) -> Parts:
    """The three parts that the split of the options makes. Raises InputError where a user's split fails."""
    given = interactions
    if not SPLITS.is_ours(config.split):
        # A copy: others read the same interactions; of int64, in which a sum or product does not overflow.
        columns = {name: getattr(interactions, name).astype(np.int64) for name in ("user", "item", "timestamp")}
        given = replace(interactions, **columns)
    with SPLITS.calling(config.split):
        parts = call_part(SPLITS, config.split, config, given)
    if not SPLITS.is_ours(config.split):
        check_parts(parts, config.split, interactions)
    return parts  # type: ignore[no-any-return]


def check_parts(parts: object, split: str, interactions: Interactions) -> None:
    """Raise InputError unless a split gave three parts of samples of the interactions, with targets of their own.

    Args:
        parts: what the split gave.
        split: its name.
        interactions: what it was given, N over U users and V items.
    """
    said, more = f"split {split!r}:", "recdistill.testing.check_split tells more"
    kinds = [type(part).__name__ for part in parts] if isinstance(parts, tuple) else [type(parts).__name__]
    if not isinstance(parts, tuple) or [type(part) for part in parts] != [Samples] * 3:
        raise InputError(f"{said} gives {', '.join(kinds) or 'nothing'}; give a tuple of three Samples; {more}")
    num_users, num_items = len(interactions.user_ids), len(interactions.item_ids)
    for samples in parts:
        for what, numbers, count in (("items", samples.items, num_items), ("users", samples.user, num_users)):
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
                raise InputError(f"{said} a part holds {what} outside 0 .. {count - 1}; {more}")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        first, second = parts[one], parts[other]
        same = first.items is second.items or np.array_equal(first.items, second.items)
        # Where the items are others, a place in one says nothing of the other.
        if same and len(np.intersect1d(first.end, second.end)):
            raise InputError(
                f"{said} an interaction is a target of two parts; what is tested must not be trained on; {more}"
            )


def refuse_empty(parts: Parts, said: str) -> None:
    """Raise InputError, beginning with what was ``said``, where a part has no sample."""
    for name, samples in zip(("training", "validation", "test"), parts, strict=True):
        if not len(samples):
            raise InputError(f"{said} leaves no {name} sample; give users with longer histories")
