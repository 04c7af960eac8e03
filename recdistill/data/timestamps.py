"""Timestamps from text to whole numbers, without rounding, which could reorder them."""

import numpy as np
import pandas as pd

from recdistill.data.samples import Int64Array
from recdistill.errors import InputError

EXACT_FLOAT = 2.0**53  # beyond it a float64 no longer tells whole numbers apart


def parse_timestamps(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse whole numbers of any unit, or ISO 8601 dates as seconds since 1970.

    '881250949', '8.81250949E8' and '881250949.0' are whole numbers; dates without a zone are UTC.

    Args:
        place: where the column comes from, for messages.
        column: N texts.

    Returns int64 [N]. Raises InputError, naming the place and the row, for a blank field, a fraction, a mixture of
    numbers and dates, or anything else.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.dtype == np.int64:
        return numbers.to_numpy(dtype=np.int64)
    is_number = np.isfinite(numbers.to_numpy(dtype=np.float64))
    if not is_number.any():
        return parse_dates(place, column)
    refuse(place, column, ~is_number, "is no whole number as other rows are")
    return parse_numbers(place, column)


def parse_numbers(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse numbers of which some are not plain integers; integers beyond 2^53 stay exact."""
    plain = column.str.fullmatch(r"[+-]?\d+(?:\.0*)?").to_numpy(dtype=bool)
    whole = column.str.partition(".")[0]
    values = whole.where(plain, "0").map(int)
    floats = pd.to_numeric(column.where(~plain, "0")).to_numpy(dtype=np.float64)
    refuse(place, column, (floats % 1 != 0) | (np.abs(floats) >= EXACT_FLOAT), "is no whole number")
    limit = np.iinfo(np.int64).max
    refuse(place, column, np.array([abs(value) > limit for value in values]), "does not fit 64 bits")
    return np.where(plain, values.to_numpy(dtype=np.int64), floats.astype(np.int64))


def parse_dates(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse ISO 8601 dates as seconds since 1970."""
    dates = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    refuse(place, column, dates.isna().to_numpy(dtype=bool), "is neither a whole number nor an ISO date")
    seconds = dates.dt.floor("s")
    refuse(place, column, (seconds != dates).to_numpy(dtype=bool), "has a fraction of a second")
    return seconds.dt.tz_localize(None).to_numpy(dtype="datetime64[s]").astype(np.int64)


def refuse(place: str, column: "pd.Series[str]", wrong: np.ndarray, reason: str) -> None:
    """Raise InputError at the first row where ``wrong`` [N] holds; a blank field is said to be blank."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        text = column.iloc[rows[0]]
        said = f"timestamp {text!r} {reason}" if text else "timestamp is blank"
        raise InputError(
            f"{place}: row {rows[0] + 1}: {said} (in {len(rows)} rows); "
            "give whole seconds or ISO dates such as 2024-05-01T12:30:00, one kind in all rows"
        )
