"""Values of any type as the text that ids, titles and times are read from."""

import math

import numpy as np
import pandas as pd

from recdistill.data.timestamps import EXACT_FLOAT
from recdistill.errors import InputError


def text_of(column: pd.Series, name: str, place: str) -> pd.Series:
    """Each value as text, white space around it removed; a missing value is blank.

    Args:
        column: N values.
        name: of the column, for messages.
        place: where it comes from, for messages.

    Raises:
        InputError: it holds lists or other values that are no ids.
    """
    try:
        codes, values = pd.factorize(column)
    except TypeError:
        raise InputError(f"{place}: column {name!r} holds lists or the like; give text or numbers") from None
    # A missing value has the code -1, the place of the last text.
    try:
        texts = np.array([*map(text, values), ""], dtype=object)
    except UnicodeDecodeError:
        said = f"{place}: column {name!r} holds bytes that are no UTF-8 text; write text or numbers"
        raise InputError(said) from None
    return pd.Series(texts[codes], dtype=object)


def text(value: object) -> str:
    """A value as text; a whole float as the whole number that it stands for, where it stands for only one.

    Bytes, as which some writers of Parquet keep text, are UTF-8.

    >>> text(7.0), text(" 007 "), text(float("nan")), text("é".encode())
    ('7', '007', '', 'é')
    """
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        if value % 1 == 0 and abs(float(value)) < EXACT_FLOAT:
            return str(int(value))
    return str(value).strip()
