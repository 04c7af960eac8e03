"""Data that come split, as the papers release them: a folder of files whose rows are a history and its next item."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recdistill.data.fingerprint import fingerprint
from recdistill.data.new_items import items_without_target
from recdistill.data.notices import notice
from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.tables import MissingTitles
from recdistill.errors import InputError

#: Histories int64 [N, L], their lengths int64 [N] and next items int64 [N].
Rows = tuple[Int64Array, Int64Array, Int64Array]


def released_folder(dataset: str, interactions: str, holding: str) -> Path:
    """The folder given as ``interactions``. Raises InputError, naming a file that it holds, where it is none."""
    if not interactions:
        raise InputError(f"interactions=: dataset={dataset} needs a folder with {holding}; set interactions=<folder>")
    folder = Path(interactions).expanduser()
    if not folder.is_dir():
        raise InputError(f"interactions={interactions}: no such folder; give the folder with {holding}")
    return folder


def find_file(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` in the folder. Raises InputError where there is none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: holds no {names[0]} and no {names[1]}; put one there")


def title_of_number(item: int) -> str:
    """The title of an item that has none but a number."""
    return f"item {item}"


def filled_titles(titles: Mapping[int, str], place: str, missing_titles: MissingTitles) -> tuple[str, ...]:
    """V titles by item, blank ones made of the number, and a line that says how many.

    Args:
        titles: by item, 0 .. V-1.
        place: where they come from, for messages.
        missing_titles: what becomes of blank ones.
    """
    blank = [item for item in range(len(titles)) if not titles[item]]
    if blank and missing_titles == "refuse":
        raise InputError(f"{place}: has no title of item {blank[0]} ({len(blank)} of {len(titles)} missing); add it")
    if blank:
        notice(
            f"{place}: warning: {len(blank):,} of {len(titles):,} items have no title, as item {blank[0]}; it is made "
            "of their id (missing_titles=refuse refuses them)"
        )
    return tuple(titles[item] or title_of_number(item) for item in range(len(titles)))


def say_folder_taken(dataset: str, paths: Mapping[str, Path], rows: Mapping[str, Rows], num_items: int) -> None:
    """Say what was taken of a folder."""
    parts = ", ".join(f"{path.name} {len(rows[part][1]):,} rows" for part, path in paths.items())
    notice(f"read {next(iter(paths.values())).parent} ({dataset}): {parts}; {num_items:,} items")


def sequences_of_rows(
    name: str,
    titles: tuple[str, ...],
    rows: Mapping[str, Rows],
    item_columns: Mapping[str, tuple[str, ...]] | None = None,
) -> SequenceData:
    """A data set that came split: items are 0 .. V-1, and every row is a user of its own.

    Args:
        name: of the data set.
        titles: V titles, by item.
        rows: those of ``train``, ``validation`` and ``test``, in this order.
        item_columns: further columns of the items, by name, V texts each.
    """
    item_ids = tuple(str(item) for item in range(len(titles)))
    parts: list[Samples] = []
    user_ids: list[str] = []
    for part, (history, length, following) in rows.items():
        parts.append(samples_of_rows(history, length, following, first_user=len(user_ids)))
        user_ids += [f"{part} row {row}" for row in range(len(length))]
    train, validation, test = parts
    new = items_without_target(train, len(titles))
    return SequenceData(
        name=name,
        split="released",
        num_items=len(titles),
        titles=titles,
        item_ids=item_ids,
        user_ids=tuple(user_ids),
        train=train,
        validation=validation,
        test=test,
        fingerprint=fingerprint(item_ids, titles, parts),
        item_columns=item_columns or {},
        new_validation=new,
        new_test=new,
    )


def samples_of_rows(history: Int64Array, length: Int64Array, following: Int64Array, first_user: int) -> Samples:
    """Pointers over a flat array in which each row's real items and its next item stand one after another.

    Args:
        history: int64 [N, L], right-padded with anything.
        length: int64 [N], real items in each row.
        following: int64 [N], the next items.
        first_user: the first row's user; each row has the number after it.
    """
    stop = np.cumsum(length + 1)
    start = stop - length - 1
    items = np.empty(stop[-1], dtype=np.int64)
    # A row's slots but the last are its history, row by row, which is the order of a boolean selection.
    is_target = np.zeros(len(items), dtype=bool)
    is_target[stop - 1] = True
    items[is_target] = following
    items[~is_target] = history[np.arange(history.shape[1]) < length[:, None]]
    return Samples(items, start, stop - 1, np.arange(first_user, first_user + len(length)))
