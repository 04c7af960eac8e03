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
LIMIT = int(np.iinfo(np.int64).max)
MOST_DIGITS = 18  # after the point
NANOSECONDS = 9  # digits after the point of a date in pandas

#: Units of time since 1970: digits after the point of a second, and the numbers that 1973 to 2255 have in each.
UNITS = {
    "seconds": (0, 10**8, 9 * 10**9),
    "milliseconds": (3, 10**11, 9 * 10**12),
    "microseconds": (6, 10**14, 9 * 10**15),
    "nanoseconds": (9, 10**17, 9 * 10**18),
}

DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?")
# As text, so that pandas may hand them to Arrow.
ZONE_NAME = r"\s*(?:[Uu][Tt][Cc]|[Gg][Mm][Tt]|[Zz])$"
BLANK_BEFORE_OFFSET = r"(:\d{2}(?:[.,]\d+)?)\s+([+-]\d{2}(?::?\d{2})?)$"
FRACTION = r"((?:[T ]\d{6}|:\d{2}:\d{2}))[.,](\d+)"
DATE_BEGINS = r"\s*[+-]?[0-9]"


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
        return moments_of_numbers(place, numbers.to_numpy(dtype=np.int64))
    is_number = np.isfinite(numbers.to_numpy(dtype=np.float64))
    if not is_number.any():
        return parse_dates(place, column)
    refuse(place, column, ~is_number, "is no whole number as other rows are, nor a fraction")
    return parse_numbers(place, column)


def moments_of_numbers(place: str, whole: Int64Array) -> Int64Array:
    """Whole numbers [N] as they are; where they are of several units, in the finest of these, and a line says so."""
    places = places_of_units(place, whole)
    return whole if places is None else whole * 10 ** (places.max() - places)


def moments_of_nanoseconds(nanoseconds: Int64Array) -> Int64Array | None:
    """Nanoseconds since 1970 [N] in the coarsest unit that tells them; None where one is at the border of 64 bits."""
    if nanoseconds.min() <= pd.Timestamp.min.value or nanoseconds.max() >= pd.Timestamp.max.value:
        return None
    return shortest(nanoseconds, NANOSECONDS)


def parse_numbers(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse numbers of which some are not plain integers; integers beyond 2^53 stay exact."""
    floats = pd.to_numeric(column).to_numpy(dtype=np.float64)
    has_exponent = column.str.contains("[eE]").to_numpy(dtype=bool)
    refuse(place, column, has_exponent & (np.abs(floats) >= EXACT_FLOAT), "is no whole number, but a rounded one")
    whole, _, fraction = (part for _, part in column.str.partition(".").items())
    width = int(fraction.str.len().max())
    if not has_exponent.any() and np.abs(floats).max() * 10.0**width < LIMIT / 2 and whole.str.contains(r"\d$").all():
        digits = fraction.str.pad(width, side="right", fillchar="0")
        values = pd.to_numeric(whole + digits).to_numpy(dtype=np.int64)
        places = places_of_units(place, values // 10**width)
        if places is None:
            return shortest(values, width)
    exact, counts = zip(*map(mantissa, column), strict=True)
    values, places = np.array(exact, dtype=object), np.array(counts, dtype=np.int64)
    refuse(place, column, places > MOST_DIGITS, f"has more than {MOST_DIGITS} digits after the point")
    truncated = values // powers(places)
    refuse(place, column, np.abs(truncated) > LIMIT, "does not fit 64 bits")
    units = places_of_units(place, truncated.astype(np.int64))
    return scaled(values, places if units is None else places + units)


def mantissa(text: str) -> tuple[int, int]:
    """A decimal number as a whole number and the count of its digits after the point, as few as there can be.

    More digits than are allowed are counted as one more than that.

    >>> mantissa("-1.50"), mantissa("2.5e3")
    ((-15, 1), (2500, 0))
    """
    found = DECIMAL.fullmatch(text)
    sign, whole, fraction, exponent = (part or "" for part in (found.groups() if found is not None else ("",) * 4))
    value, digits = int(f"{sign}0{whole}{fraction}"), len(fraction) - int(exponent or 0)
    while value and digits > 0 and value % 10 == 0:
        value, digits = value // 10, digits - 1
    return (value * 10 ** max(0, -digits), min(max(0, digits), MOST_DIGITS + 1)) if value else (0, 0)


def parse_dates(place: str, column: "pd.Series[str]") -> Int64Array:
    """Parse ISO 8601 dates as seconds since 1970, and finer where some have fractions of a second."""
    nanoseconds = nanoseconds_of(column)
    if nanoseconds is None:
        texts = column.str.replace(ZONE_NAME, "", regex=True)
        texts = texts.str.replace(BLANK_BEFORE_OFFSET, r"\1\2", regex=True)
        texts = texts.str.replace(FRACTION, r"\1.\2", regex=True)
        nanoseconds = nanoseconds_of(texts)
    if nanoseconds is not None:
        return shortest(nanoseconds, NANOSECONDS)
    dates = read_dates(texts.str.replace(FRACTION, r"\1", regex=True))
    refuse(place, column, dates.isna().to_numpy(dtype=bool), "is neither a number nor an ISO date")
    seconds = dates.dt.floor("s").dt.tz_localize(None).to_numpy(dtype="datetime64[s]").astype(np.int64)
    fractions = [text.rstrip("0") for text in texts.str.extract(FRACTION)[1].fillna("")]
    digits = np.array([len(text) for text in fractions], dtype=np.int64)
    refuse(place, column, digits > MOST_DIGITS, f"has more than {MOST_DIGITS} digits after the point")
    parts = np.array([int(text or 0) for text in fractions], dtype=object)
    return scaled(seconds.astype(object) * powers(digits) + parts, digits)


def nanoseconds_of(texts: "pd.Series[str]") -> Int64Array | None:
    """Nanoseconds since 1970, int64 [N]; None where a text is no ISO date, or its date or fraction is beyond them."""
    dates = read_dates(texts)
    if dates.isna().any() or texts.str.contains(r"\.\d{10}").any():
        return None
    low, high = (limit.tz_localize("UTC") for limit in (pd.Timestamp.min, pd.Timestamp.max))
    if dates.min() <= low or dates.max() >= high:
        return None
    return dates.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]").astype(np.int64)


def read_dates(texts: "pd.Series[str]") -> pd.Series:
    """Moments in UTC; NaT where a text is no ISO date."""
    # pandas takes 'now' and 'today' for what its clock says.
    dated = texts.where(texts.str.match(DATE_BEGINS))
    return pd.to_datetime(dated, format="ISO8601", utc=True, errors="coerce")


def places_of_units(place: str, whole: Int64Array) -> Int64Array | None:
    """Digits after the point of a second that each number counts in, int64 [N]; None where all are of one unit."""
    lows = [low for _, low, _ in UNITS.values()]
    unit = np.searchsorted(lows, whole, side="right") - 1
    highs = np.array([high for _, _, high in UNITS.values()])
    if not len(whole) or unit.min() < 0 or unit.min() == unit.max() or np.any(whole >= highs[unit]):
        return None
    counts = np.bincount(unit, minlength=len(UNITS))
    said = " and ".join(f"{count:,} in {name}" for name, count in zip(UNITS, counts, strict=True) if count)
    notice(f"{place}: timestamps are {said}, by the size of the numbers; each is taken as such")
    return np.array([places for places, _, _ in UNITS.values()], dtype=np.int64)[unit]


def shortest(values: Int64Array, digits: int) -> Int64Array:
    """Values with ``digits`` digits after the point, without those that all have as 0."""
    while digits and not np.any(values % 10):
        values, digits = values // 10, digits - 1
    return values


def scaled(values: np.ndarray, places: Int64Array) -> Int64Array:
    """``values / 10 ** places`` in the unit of the most places, or where that does not fit 64 bits their rank.

    Args:
        values: N Python integers.
        places: int64 [N], at least 0.
    """
    exact = values * powers(places.max() - places)
    if max(exact) > LIMIT or min(exact) < -LIMIT:
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
