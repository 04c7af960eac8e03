"""Times from text: their order is exact, or they are refused with the row."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recdistill.data.timestamps import parse_timestamps
from recdistill.errors import InputError


def parse(*texts: str) -> list[int]:
    times = parse_timestamps("log.csv", pd.Series(texts, dtype=str))
    assert times.dtype == np.int64
    return times.tolist()


def order(values: list) -> list[int]:
    """The place of each value among them all; equal ones have the same."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["881250949", "-3", "+4"], [881250949, -3, 4]),
        (["881250949.0", "7", "7."], [881250949, 7, 7]),
        (["8.81250949E8", "7"], [881250949, 7]),
        (["9007199254740993", "9007199254740992.0"], [2**53 + 1, 2**53]),
        (["9223372036854775807", "1.0"], [2**63 - 1, 1]),
        (["1970-01-02", "1970-01-01T00:00:09"], [86400, 9]),
        (["1970-01-01T01:00:00+01:00", "1969-12-31 23:59:59"], [0, -1]),
        (["1970-01-01T00:00:03.000Z"], [3]),
        (["2200-01-01"], [7258118400]),
        (["1970-01-01 00:00:03 UTC", "1970-01-01 00:00:04 gmt", "1970-01-01T00:00:05z"], [3, 4, 5]),
        (["1970-01-01 01:00:03 +0100", "1970-01-01 01:00:04 +01:00", "1970-01-01 00:00:05 +0000 UTC"], [3, 4, 5]),
    ],
)
def test_whole_numbers_and_whole_seconds_keep_their_values(texts, expected):
    assert parse(*texts) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1.5", "2"], [15, 20]),
        (["-1.50", "-1.25", ".5", "0."], [-150, -125, 50, 0]),
        (["1.5e0", "2e1"], [15, 200]),
        (["1700000000.277", "1700000000.28"], [1700000000277, 1700000000280]),
        (["9007199254740993.5", "9007199254740993"], [90071992547409935, 90071992547409930]),
        (["1970-01-01T00:00:00.5"], [5]),
        (["1970-01-01 00:00:01.25 UTC", "1970-01-01T00:00:01,250Z", "1970-01-01"], [125, 125, 0]),
        (["1970-01-01T00:00:01.000000001Z", "1970-01-01T00:00:01Z"], [10**9 + 1, 10**9]),
        (["1969-12-31T23:59:59.9"], [-1]),
        (["19700101T000001.5"], [15]),
    ],
)
def test_fractions_are_in_the_unit_that_the_finest_needs(texts, expected):
    assert parse(*texts) == expected


@pytest.mark.parametrize(
    "texts",
    [
        ["9223372036854775807.5", "9223372036854775806", "0"],
        ["1700000000.123456789012345678", "1700000000.123456789012345677", "5"],
        ["2023-11-14T22:13:20.123456789012", "2023-11-14T22:13:20.123456789011", "1970-01-01"],
        ["9000-01-01T00:00:00.25", "9000-01-01T00:00:00", "1970-01-01"],
    ],
)
def test_what_no_unit_holds_is_in_order_all_the_same(texts):
    first, second, third = parse(*texts)
    assert first > second > third


@pytest.mark.parametrize(
    ("texts", "expected", "told"),
    [
        (
            ["1700000000", "1700000000123456789", "1699999999"],
            [1700000000000000000, 1700000000123456789, 1699999999000000000],
            "2 in seconds and 1 in nanoseconds",
        ),
        (["1700000000001", "1700000000"], [1700000000001, 1700000000000], "1 in seconds and 1 in milliseconds"),
        (
            ["1700000000.5", "1700000000499", "1700000000499001"],
            [1700000000500000, 1700000000499000, 1700000000499001],
            "1 in seconds and 1 in milliseconds and 1 in microseconds",
        ),
    ],
)
def test_of_several_units_each_is_taken_as_its_size_says(said, texts, expected, told):
    assert parse(*texts) == expected
    assert said() == [f"log.csv: timestamps are {told}, by the size of the numbers; each is taken as such"]


@pytest.mark.parametrize(
    "values",
    [
        [5, 1700000000, 1700000000000],
        [-1, 1700000000, 1700000000000],
        [20231114, 202311142213],
        [1, 10**6, 10**9, 10**12],
    ],
)
def test_numbers_that_are_no_moments_are_numbers(said, values):
    assert parse(*map(str, values)) == values
    assert said() == []


@pytest.mark.parametrize("word", ["now", "today", "NOW", "Today", " now", "tomorrow", "NaT"])
@pytest.mark.parametrize("other", ["2024-05-01", "1970-01-01T00:00:00.1234567891", "1970-01-01 00:00:01 UTC", "today"])
def test_no_word_is_what_the_clock_says(word, other):
    with pytest.raises(InputError) as caught:
        parse("2024-05-01", other if other != "today" else "2024-05-02", word)
    assert f"log.csv: row 3: timestamp {word.strip()!r} is neither a number nor an ISO date" in str(caught.value)
    with pytest.raises(InputError, match="row 1: timestamp"):
        parse(word)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["1", ""], "row 2: timestamp is blank"),
        (["1970-01-01", ""], "row 2: timestamp is blank"),
        (["", ""], "row 1: timestamp is blank"),
        (["1", "nan"], "row 2: timestamp 'nan' is no whole number as other rows are, nor a fraction"),
        (["1", "inf", "2"], "row 2: timestamp 'inf'"),
        (["1", "1e30"], "row 2: timestamp '1e30' is no whole number, but a rounded one"),
        (["1.5", "1.7000000002e18"], "row 2: timestamp '1.7000000002e18' is no whole number, but a rounded one"),
        (["1", "1e-30"], "row 2: .* has more than 18 digits after the point"),
        (["1", "1.0000000000000000001"], "row 2: .* has more than 18 digits after the point"),
        (["1970-01-01T00:00:00.0000000000000000001"], "row 1: .* has more than 18 digits after the point"),
        (["1", "9223372036854775808"], "row 2: .* does not fit 64 bits"),
        (["1.5", "92233720368547758080"], "row 2: .* does not fit 64 bits"),
        (["yesterday"], "row 1: timestamp 'yesterday' is neither"),
        (["14/11/2023 22:13"], "row 1: .* is neither a number nor an ISO date"),
        (["1970-01-01", "1970-13-01"], "row 2: .* is neither"),
        (["881250949", "1970-01-01"], "row 2: .* as other rows are"),
        (["1970-01-01", "8.5"], "row 1: .* as other rows are"),
        (["a\nb" * 100], "row 1: timestamp 'a ba ba b"),
    ],
)
def test_what_is_refused(texts, told):
    with pytest.raises(InputError, match=f"log.csv: {told}") as caught:
        parse(*texts)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=5), st.booleans())
def test_whole_numbers_stay_exact(values, with_float):
    texts = [str(value) for value in values] + (["3.0"] if with_float else [])
    assert order(parse(*texts)) == order(values + ([3] if with_float else []))


NUMBERS = st.tuples(
    st.sampled_from(["", "-", "+"]), st.integers(0, 10**12), st.integers(0, 10**18 - 1), st.integers(0, 18)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.booleans())
@example([("", 1, 10**17, 18), ("", 1, 10**17 + 1, 18)], True)
def test_decimal_numbers_are_in_exact_order(numbers, with_exponent):
    texts = []
    for sign, whole, fraction, digits in numbers:
        text = f"{sign}{whole}" + (f".{str(fraction).zfill(18)[:digits]}" if digits else "")
        texts.append(text + ("e0" if with_exponent and whole < 2**50 else ""))
    expected = [Fraction(text.removesuffix("e0")) for text in texts]
    large = [value for value in expected if value >= 10**8]
    if not large or len(large) < len(texts):  # else they may be moments of several units
        assert order(parse(*texts)) == order(expected)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-(10**10), 10**10), st.text("0123456789", max_size=14), st.integers(0, 6)),
        min_size=1,
        max_size=6,
    )
)
def test_dates_are_in_exact_order_however_they_are_written(moments):
    texts, expected = [], []
    for second, digits, form in moments:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        fraction = f".{digits}" if digits else ""
        east = (moment + timedelta(hours=5, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S")
        plain = moment.strftime("%Y-%m-%d %H:%M:%S")
        endings = ["", "Z", " UTC", "+00:00", " +0000", " +0000 UTC"]
        texts.append(f"{east}{fraction}+05:30" if form == 6 else f"{plain}{fraction}{endings[form]}")
        expected.append(second + Fraction(int(digits or 0), 10 ** len(digits)))
    texts = [text.zfill(len(text) + 4 - text.index("-")) for text in texts]
    assert order(parse(*texts)) == order(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 2e9, allow_nan=False), min_size=1, max_size=5))
def test_floats_as_python_writes_them_are_in_exact_order(values):
    texts = [repr(value) for value in values]
    if all(len(text.partition("e")[0].partition(".")[2]) < 12 and "e-" not in text for text in texts):
        assert order(parse(*texts)) == order(values)
