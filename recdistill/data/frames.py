"""A person's own frames of interactions and items as a data set."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.load import split_data
from recdistill.data.sequences import SequenceData
from recdistill.data.tables import INTERACTION_COLUMNS, interactions_of_tables
from recdistill.data.timestamps import EXACT_FLOAT
from recdistill.errors import InputError, one_line

INTERACTIONS, ITEMS = "frame interactions", "frame items"  # what messages call the two


def data_from_frames(interactions: pd.DataFrame, items: pd.DataFrame | None = None, **options: Any) -> SequenceData:
    """Split frames as ``dataset=csv`` splits files of the same content, with the same checks and fingerprint.

    Ids may be of any type, and become text: 7 and 7.0 become '7'. Other columns are ignored.

    >>> log = pd.DataFrame({"user": ["ann"] * 4, "item": [70, 8, 9, 70], "timestamp": [1, 2, 3, 4]})
    >>> data = data_from_frames(log)
    >>> data.item_ids, data.train.targets.tolist(), data.test.targets.tolist()
    (('70', '8', '9'), [1], [0])

    Args:
        interactions: columns ``user``, ``item`` and ``timestamp``: whole numbers, ISO text, or datetimes (UTC where
            they have no time zone).
        items: columns ``item`` and, where there are titles, ``title``, in the order of the catalogue. None takes the
            items of ``interactions`` by first appearance. An item without title has its id for one.
        options: of `DataConfig`, but ``dataset``, ``interactions`` and ``items``.

    Raises:
        InputError: an option or a field of the frames is not allowed, or a part would be empty. One line.
    """
    if "dataset" in options:
        raise InputError(f"dataset={options['dataset']}: the data are the frames; leave it out")
    config = DataConfig(**options)
    table = text_columns(interactions, INTERACTION_COLUMNS, INTERACTIONS)
    if items is None:
        catalogue = pd.DataFrame({"item": table["item"].drop_duplicates()})
    else:
        named = [name for name in ("item", "title") if name == "item" or name in items.columns]
        catalogue = text_columns(items, tuple(named), ITEMS)
    titles = catalogue.get("title", catalogue["item"])
    catalogue = catalogue.assign(title=titles.where(titles != "", catalogue["item"]))
    log = interactions_of_tables(table, INTERACTIONS, catalogue, ITEMS)
    return replace(split_data(log, config), name="frames")


def text_columns(frame: pd.DataFrame, columns: tuple[str, ...], place: str) -> pd.DataFrame:
    """The named columns as text. Raises InputError where one is missing or stands twice, or there is no row."""
    for name in columns:
        count = int((frame.columns == name).sum())
        if count != 1:
            said = "has no column" if not count else f"has {count} columns"
            found = one_line(", ".join(map(str, frame.columns))) or "none"
            raise InputError(f"{place}: {said} {name!r}, found {found}; name one column {name!r}")
    if not len(frame):
        raise InputError(f"{place}: has no rows; give at least one row")
    return pd.DataFrame({name: text_of(frame[name], name, place) for name in columns})


def text_of(column: pd.Series, name: str, place: str) -> pd.Series:
    """Each value as text, white space around it removed; a missing value is blank."""
    try:
        codes, values = pd.factorize(column)
    except TypeError:
        raise InputError(f"{place}: column {name!r} holds lists or the like; give text or numbers") from None
    # A missing value has the code -1, the place of the last text.
    texts = np.array([*map(text, values), ""], dtype=object)
    return pd.Series(texts[codes], dtype=object)


def text(value: object) -> str:
    """A value as text; a whole float as the whole number that it stands for, where it stands for only one."""
    if isinstance(value, float | np.floating) and value % 1 == 0 and abs(float(value)) < EXACT_FLOAT:
        return str(int(value))
    return str(value).strip()
