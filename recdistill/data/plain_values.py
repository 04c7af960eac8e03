"""Values of any type as what text holds: the cells of a CSV file and the values of JSON."""

import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from recdistill.errors import InputError


def plain_column(column: pd.Series, place: str) -> list[Any]:
    """Each value of a column as JSON holds it, see `plain`.

    Args:
        column: N values.
        place: what is written, for messages.

    Raises:
        InputError: it holds bytes that are no UTF-8 text.
    """
    # As Python floats, those of 32 bits would show digits that nobody wrote.
    values: Any = column.to_numpy() if getattr(column.dtype, "kind", "") == "f" else column
    try:
        return [plain(value) for value in values]
    except UnicodeDecodeError:
        said = f"{place}: column {column.name!r} holds bytes that are no UTF-8 text"
        raise InputError(f"{said}; write .parquet, or leave the column out") from None


def cell(value: object) -> object:
    """A value of `plain` as a field of a CSV file: a list or an object as JSON, whatever else as it is.

    >>> cell(["é", 1]), cell("a")
    ('["é", 1]', 'a')
    """
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def plain(value: object) -> Any:
    """A value as JSON holds it: None, a bool, a number, a text, or a list or an object of these.

    Floats are written with the fewest digits that tell them; infinite ones, which JSON lacks, are text, and NaN is
    missing. Dates, times and durations are ISO 8601, bytes are UTF-8; other values are text.

    >>> plain(np.array([1e-12, np.inf])), plain(np.float32(0.1)), plain(pd.Timestamp("2024-05-01 12:30"))
    ([1e-12, 'inf'], 0.1, '2024-05-01T12:30:00')
    >>> plain((b"x", datetime.date(2024, 5, 1), pd.NaT, {"n": decimal.Decimal("9.90")}))
    ['x', '2024-05-01', None, {'n': 9.9}]

    Raises:
        UnicodeDecodeError: bytes are no UTF-8 text.
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, str):
        return encodable(value)
    # Before integers, of which NumPy counts durations.
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else plain(pd.Series([value]).iloc[0])
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating | decimal.Decimal):
        return plain_number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8")
    if isinstance(value, datetime.timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {encodable(str(name)): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [plain(one) for one in value]
    return encodable(str(value))


def plain_number(value: "float | np.floating[Any] | decimal.Decimal") -> float | str | None:
    """A number as the float that its shortest text reads as; as text where it is infinite or no float tells it."""
    number = float(value) if isinstance(value, float) else float(str(value))
    if math.isnan(number):
        return None
    exact = not isinstance(value, decimal.Decimal) or decimal.Decimal(repr(number)) == value
    return number if exact and math.isfinite(number) else str(value)


def encodable(text: str) -> str:
    """The text with '?' for each half of a pair of surrogates, which only JSON and Python take for text."""
    return text.encode("utf-8", "replace").decode()
