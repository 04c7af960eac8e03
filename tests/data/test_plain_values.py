"""Values of any type as text files hold them: nothing is rounded, and what cannot be written is refused."""

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.plain_values import cell, plain, plain_column
from recdistill.errors import InputError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e-12, 1e-12),
        (0.12345678901234567, 0.12345678901234567),
        (np.float32(0.1), 0.1),
        (float("-inf"), "-inf"),
        (float("nan"), None),
        (2**60 + 1, 2**60 + 1),
        (np.int8(5), 5),
        (np.bool_(True), True),
        (decimal.Decimal("9.90"), 9.9),
        (decimal.Decimal("0.12345678901234567890123"), "0.12345678901234567890123"),
        (decimal.Decimal("NaN"), None),
        (pd.NA, None),
        (np.datetime64("NaT"), None),
        (pd.Timestamp("2024-05-01 12:30:00.123456789"), "2024-05-01T12:30:00.123456789"),
        (pd.Timestamp("2024-05-01", tz="Europe/Berlin"), "2024-05-01T00:00:00+02:00"),
        (np.datetime64("2024-05-01T12:30", "us"), "2024-05-01T12:30:00"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.time(12, 30), "12:30:00"),
        (datetime.timedelta(seconds=5), "P0DT0H0M5S"),
        (np.timedelta64(5, "s"), "P0DT0H0M5S"),
        (b"\xc3\xa9", "é"),
        ("\ud800", "?"),
        (np.array([np.array(["a"]), None], dtype=object), [["a"], None]),
        ([(1, datetime.date(2024, 5, 1))], [[1, "2024-05-01"]]),
        ({"a": np.array([1.5])}, {"a": [1.5]}),
    ],
)
def test_values_by_hand(value, expected):
    found = plain(value)
    assert (type(found), found) == (type(expected), expected)
    assert json.loads(json.dumps(found, allow_nan=False)) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_are_read_again_as_they_were(values):
    assert plain_column(pd.Series(values, dtype="float64"), "out") == values
    assert json.loads(json.dumps(plain(np.array(values)))) == values


def test_a_list_is_a_field_as_json():
    assert [cell(plain(value)) for value in (np.array(["é", "b"]), "é", 1.5, None)] == ['["é", "b"]', "é", 1.5, None]


@pytest.mark.parametrize("value", [b"x\xff", [b"\xff"]])
def test_bytes_that_are_no_text_are_refused_in_one_line(value):
    with pytest.raises(
        InputError, match=r"^output=o.csv: column 'blob' holds bytes that are no UTF-8 text; write"
    ) as caught:
        plain_column(pd.Series([value], name="blob"), "output=o.csv")
    assert "\n" not in str(caught.value)
