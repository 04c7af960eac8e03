"""A person's own frames of interactions and items as a data set."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.columns import INTERACTION_COLUMNS, Headers, headers_of, pick, refuse_unused
from recdistill.data.item_columns import further_columns, without_point_zero
from recdistill.data.load import split_data
from recdistill.data.sequences import SequenceData
from recdistill.data.table_files import texts_of_columns
from recdistill.data.tables import interactions_of_tables
from recdistill.data.text_columns import text_of
from recdistill.errors import InputError

INTERACTIONS, ITEMS = "frame interactions", "frame items"  # what messages call the two


def data_from_frames(interactions: pd.DataFrame, items: pd.DataFrame | None = None, **options: Any) -> SequenceData:
    """Split frames as ``dataset=csv`` splits files of the same content, with the same checks and fingerprint.

    Ids may be of any type, and become text: 7 and 7.0 become '7'. Other columns of ``items`` that hold
    text or numbers are kept as text, for item texts; others are ignored.

    >>> log = pd.DataFrame({"user": ["ann"] * 4, "item": [70, 8, 9, 70], "timestamp": [1, 2, 3, 4]})
    >>> data = data_from_frames(log)
    >>> data.item_ids, data.train.targets.tolist(), data.test.targets.tolist()
    (('70', '8', '9'), [1], [0])

    Args:
        interactions: columns ``user``, ``item`` and ``timestamp``: numbers, ISO text, or datetimes (UTC where they
            have no time zone).
        items: columns ``item`` and, where there are titles, ``title``, in the order of the catalogue. None takes the
            items of ``interactions`` by first appearance. An item without title, or without a row here, has its id
            for one.
        options: of `DataConfig`, but ``dataset``, ``interactions`` and ``items``; ``columns`` where the columns are
            called otherwise.

    Raises:
        InputError: what is given is no frame, an option or a field of the frames is not allowed, or a part would be
            empty. One line.
    """
    for name, frame in (("interactions", interactions), ("items", items)):
        if not (isinstance(frame, pd.DataFrame) or (name == "items" and frame is None)):
            raise InputError(f"{name}: is a {type(frame).__name__}; give a pandas DataFrame, or files to load_data")
    if "dataset" in options:
        raise InputError(f"dataset={options['dataset']}: the data are the frames; leave it out")
    config = DataConfig(**options).checked()
    headers = headers_of(config.columns)
    table, of_table = text_columns(interactions, INTERACTION_COLUMNS, headers, INTERACTIONS)
    catalogue, of_items = pd.DataFrame({"item": table["item"].drop_duplicates()}), dict[str, str]()
    if items is not None:
        has_titles = "title" in items.columns or "title" in headers
        catalogue, of_items = text_columns(items, ("item", "title") if has_titles else ("item",), headers, ITEMS)
        catalogue = pd.concat([catalogue, further_texts(items, of_items.values())], axis=1)
    refuse_unused(config.columns, headers, of_table, of_items)
    if "title" not in catalogue:
        catalogue["title"] = "" if config.missing_titles == "refuse" else catalogue["item"]
    log = interactions_of_tables(table, INTERACTIONS, catalogue, ITEMS, config.missing_titles)
    return replace(split_data(log, config), name="frames")


def further_texts(items: pd.DataFrame, used: Iterable[str]) -> pd.DataFrame:
    """The columns beside the ``used`` ones that hold text or numbers, as text."""
    names = list(map(str, items.columns))
    others = further_columns(names, used)
    columns = items.iloc[:, [names.index(name) for name in others]].set_axis(others, axis=1).reset_index(drop=True)
    found = {
        name: without_point_zero(texts.tolist()) for name, texts in texts_of_columns(columns, others, ITEMS).items()
    }
    return pd.DataFrame(found, index=columns.index)


def text_columns(
    frame: pd.DataFrame, columns: tuple[str, ...], headers: Headers, place: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The named columns as text, and what each is called. Raises InputError where one is missing or stands twice."""
    names = list(map(str, frame.columns))
    used = pick(names, columns, headers, place)
    for name in used.values():
        if names.count(name) > 1:
            raise InputError(f"{place}: has {names.count(name)} columns {name!r}; name one column {name!r}")
    if not len(frame):
        raise InputError(f"{place}: has no rows; give at least one row")
    found = {column: text_of(frame.iloc[:, names.index(name)], name, place) for column, name in used.items()}
    return pd.DataFrame(found), used
