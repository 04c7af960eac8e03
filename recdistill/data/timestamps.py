"""Timestamps from text to whole numbers, without rounding, which could reorder them.

Only their order matters. Whole numbers and whole seconds keep their values; where a column holds fractions, or several
units, all of it is in the unit that the finest of them needs.
"""

import re

import numpy as np
import pandas as pd

from recdistill.data.notices import notice
from recdistill.data.samples import Int64Array
from recdistill.errors import InputError, one_line

EXACT_FLOAT = 2.0**53  # beyond it a float64 no longer tells whole numbers apart
MOST_DIGITS = 18  # after the point

#: Units of time since 1970: decimals of a second, and the sizes that moments from 1973 to 2255 have in each.
UNITS = {
    "seconds": (0, 10**8, 9 * 10**9),
    "milliseconds": (3, 10**11, 9 * 10**12),
    "microseconds": (6, 10**14, 9 * 10**15),
    "nanoseconds": (9, 10**17, 9 * 10**18),
}

ZONE_NAME = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
BLANK_BEFORE_OFFSET = re.compile(r"(:\d{2}(?:[.,]\d+)?)\s+([+-]\d{2}(?::?\d{2})?)$")
DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?")
FRACTION = re.compile(r"((?:[T ]\d{6}|:\d{2}:\d{2}))[.,](\d+)")


def parse_timestamps(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse numbers of any unit, or ISO 8601 dates as seconds since 1970 and finer where they have fractions.

    '881250949', '8.81250949E8' and '881250949.0' are whole numbers; dates without a zone are UTC, and may end in
    ' UTC'. Where every number has the size of a moment since 1970 and they are of several units, as seconds beside
    nanoseconds, each is taken in the unit that its size tells, and a line says so.

    Args:
        place: where the column comes from, for messages.
        column: N texts.

    Returns int64 [N], in the order of the moments, equal where they are equal. Raises InputError, naming the place and
    the row, for a blank field, a mixture of numbers and dates, or anything else.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.dtype == np.int64:
        whole = numbers.to_numpy(dtype=np.int64)
        places = places_of_units(place, whole)
        return whole if places is None else whole * 10 ** (places.max() - places)
    is_number = np.isfinite(numbers.to_numpy(dtype=np.float64))
    if not is_number.any():
        return parse_dates(place, column)
    refuse(place, column, ~is_number, "is no whole number as other rows are, nor a fraction")
    return parse_numbers(place, column)


def parse_numbers(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse numbers of which some are not plain integers; integers beyond 2^53 stay exact."""
    plain = column.str.fullmatch(r"[+-]?\d+(?:\.0*)?").to_numpy(dtype=bool)
    whole = column.str.partition(".")[0]
    values = whole.where(plain, "0").map(int).to_numpy(dtype=object)
    floats = pd.to_numeric(column.where(~plain, "0")).to_numpy(dtype=np.float64)
    rounded = column.str.contains("e", case=False).to_numpy(dtype=bool) & (np.abs(floats) >= EXACT_FLOAT)
    refuse(place, column, rounded & ~plain, "is no whole number, but one that was rounded")
    limit = np.iinfo(np.int64).max
    refuse(place, column, np.array([abs(value) > limit for value in values]), "does not fit 64 bits")
    refuse(place, column, np.abs(floats) > limit, "does not fit 64 bits")
    digits = np.zeros(len(column), dtype=np.int64)
    for row in np.flatnonzero(~plain):
        values[row], digits[row] = mantissa(column.iloc[row])
    refuse(place, column, digits > MOST_DIGITS, f"has more than {MOST_DIGITS} digits after the point")
    places = places_of_units(place, np.where(plain, values, floats).astype(np.int64))
    return scaled(values, digits if places is None else digits + places)


def mantissa(text: str) -> tuple[int, int]:
    """A decimal number as a whole number and the count of its digits after the point, as few as there can be.

    >>> mantissa("-1.50"), mantissa("2.5e3")
    ((-15, 1), (2500, 0))
    """
    sign, whole, fraction, exponent = (part or "" for part in DECIMAL.fullmatch(text.strip()).groups())  # type: ignore[union-attr]
    fraction = fraction.rstrip("0") if not exponent else fraction
    value, digits = int(f"{sign}{whole}{fraction}" if whole + fraction else "0"), len(fraction) - int(exponent or 0)
    while value and digits > 0 and value % 10 == 0:
        value, digits = value // 10, digits - 1
    return (value * 10 ** max(0, -digits), min(max(0, digits), MOST_DIGITS + 1)) if value else (0, 0)


def parse_dates(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse ISO 8601 dates as seconds since 1970, and finer where some have fractions of a second."""
    values, wrong = seconds_of(column)
    if not wrong.any() and not column.str.contains(".", regex=False).any():
        return values
    plain = column.str.replace(ZONE_NAME, "", regex=True).str.replace(BLANK_BEFORE_OFFSET, r"\1\2", regex=True)
    fraction = plain.str.extract(FRACTION)[1].fillna("").str.rstrip("0")
    whole = plain.str.replace(FRACTION, r"\1", n=1, regex=True)
    values, wrong = seconds_of(whole)
    refuse(place, column, wrong, "is neither a whole number, nor a fraction, nor an ISO date")
    digits = fraction.str.len().to_numpy(dtype=np.int64)
    if not digits.any():
        return values
    refuse(place, column, digits > MOST_DIGITS, f"has more than {MOST_DIGITS} digits after the point")
    parts = np.array([int(text or 0) for text in fraction], dtype=object)
    return scaled(values.astype(object) * powers(digits) + parts, digits)


def seconds_of(column: "pd.Series[str]") -> tuple[Int64Array, np.ndarray]:
    """Whole seconds since 1970 of ISO dates, int64 [N], and bool [N] where a text is none; fractions are cut off."""
    dates = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    seconds = dates.dt.floor("s").dt.tz_localize(None).to_numpy(dtype="datetime64[s]").astype(np.int64)
    return seconds, dates.isna().to_numpy(dtype=bool)


def places_of_units(place: str, whole: Int64Array) -> Int64Array | None:
    """Decimals of a second that each number counts in, int64 [N]; None where they are not of several units."""
    lows = [low for _, low, _ in UNITS.values()]
    unit = np.searchsorted(lows, whole, side="right") - 1
    highs = np.array([high for _, _, high in UNITS.values()])
    if not len(whole) or unit.min() < 0 or unit.min() == unit.max() or np.any(whole >= highs[unit]):
        return None
    counts = np.bincount(unit, minlength=len(UNITS))
    said = " and ".join(f"{count:,} in {name}" for name, count in zip(UNITS, counts, strict=True) if count)
    notice(f"{place}: timestamp is {said}, by the size of the numbers; each is taken as such")
    return np.array([places for places, _, _ in UNITS.values()], dtype=np.int64)[unit]


def scaled(values: np.ndarray, places: Int64Array) -> Int64Array:
    """``values / 10 ** places`` in the unit of the most places, or where that does not fit 64 bits their rank.

    Args:
        values: N Python integers.
        places: int64 [N], at least 0.
    """
    exact = values * powers(places.max() - places)
    limit = np.iinfo(np.int64).max
    if max(exact) > limit or min(exact) < -limit:
        rank = {value: position for position, value in enumerate(sorted(set(exact)))}
        exact = np.array([rank[value] for value in exact])
    return exact.astype(np.int64)


def powers(places: Int64Array) -> np.ndarray:
    """``10 ** places`` as Python integers, which do not overflow."""
    return np.array([10**place for place in range(int(places.max()) + 1)], dtype=object)[places]


def refuse(place: str, column: "pd.Series[str]", wrong: np.ndarray, reason: str) -> None:
    """Raise InputError at the first row where ``wrong`` [N] holds; a blank field is said to be blank."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        text = column.iloc[rows[0]]
        said = f"timestamp {one_line(text, 60)!r} {reason}" if text else "timestamp is blank"
        raise InputError(
            f"{place}: row {rows[0] + 1}: {said} (in {len(rows)} rows); "
            "give numbers or ISO dates such as 2024-05-01T12:30:00.5Z, one kind in all rows"
        )
