"""Further columns of an items file, such as year and genres, as plain text: what item texts are made of."""

import datetime
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recdistill.data.columns import ITEM_COLUMNS
from recdistill.data.text_columns import text

#: Names that a reader or pandas gave to a column that has none.
NO_NAME = re.compile(r"\(blank \d+\)|Unnamed: \d+|__index_level_\d+__|")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
WHOLE = re.compile(r"([+-]?\d+)\.0+")
BETWEEN = ", "  # the words of a list
MIDNIGHT = " 00:00:00"


def further_columns(names: Sequence[str], used: Iterable[str]) -> list[str]:
    """The headers of an items file that are neither ``used`` for ids and titles nor could be taken for them.

    Those without a name, and those that stand twice, are left out.

    >>> further_columns(["sku", "name", "title", "year", "Unnamed: 0"], ["sku", "name"])
    ['year']
    """
    taken = {*used, *ITEM_COLUMNS}
    return [name for name in names if name not in taken and not NO_NAME.fullmatch(name) and names.count(name) == 1]


def plain_texts(column: pd.Series) -> "pd.Series[str] | None":
    """Each value as text: a whole float as the whole number, a list of words joined by commas, a missing one as ''.

    None where the column holds what is no text, as vectors or bytes.

    >>> plain_texts(pd.Series([1995.0, None])).tolist(), plain_texts(pd.Series([["Crime", "Drama"]])).tolist()
    (['1995', ''], ['Crime, Drama'])
    """
    # As Python floats, those of 32 bits would show digits that nobody wrote.
    values: Any = column.to_numpy() if getattr(column.dtype, "kind", "") == "f" else column
    missing = column.isna()
    try:
        texts = ["" if gone else plain_text(value) for value, gone in zip(values, missing, strict=True)]
    except TypeError:
        return None
    if any(texts) and all(one.endswith(MIDNIGHT) for one in texts if one) and is_dates(column):
        texts = [one.removesuffix(MIDNIGHT) for one in texts]
    # What a text of digits means is told by the whole column: a file of several may hold a part of it.
    is_text = any(isinstance(value, str) for value in column)
    return pd.Series(texts if is_text else without_point_zero(texts), index=column.index, dtype=object)


def is_dates(column: pd.Series) -> bool:
    """Whether a column is of times."""
    return getattr(column.dtype, "kind", "") == "M" or isinstance(column.dropna().iloc[0], datetime.datetime)


def plain_text(value: object) -> str:
    """One value as text. Raises TypeError for what is no text.

    >>> plain_text(" Heat "), plain_text(9.5), plain_text(True), plain_text(("Crime", " Drama"))
    ('Heat', '9.5', 'True', 'Crime, Drama')
    """
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        words = sorted(value) if isinstance(value, set | frozenset) else list(value)
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a list of other things than words")
        return BETWEEN.join(word.strip() for word in words if word.strip())
    if isinstance(value, str | bool | np.bool_ | numbers.Real | datetime.date | datetime.time):
        return text(value)
    if type(value).__name__ == "Decimal":
        return without_point_zero([str(value)])[0]
    raise TypeError(f"{type(value).__name__} is no text")


def without_point_zero(texts: Sequence[str]) -> list[str]:
    """Texts of numbers with 1995.0 as 1995; as they are where one of them is no number, and not blank.

    >>> without_point_zero(["1995.0", "", "9.5"]), without_point_zero(["1.0", "beta"])
    (['1995', '', '9.5'], ['1.0', 'beta'])
    """
    if not all(not one or NUMBER.fullmatch(one) for one in texts):
        return list(texts)
    return [found[1] if (found := WHOLE.fullmatch(one)) else one for one in texts]


def item_columns(items: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """The columns of a table of items beside id and title, by name, V texts each; '' where there is none."""
    return {str(name): tuple(items[name].fillna("")) for name in items.columns if name not in ITEM_COLUMNS}
