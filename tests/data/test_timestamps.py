"""Times from text: exact, or refused with the row."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.timestamps import parse_timestamps
from recdistill.errors import InputError


def parse(*texts: str) -> list[int]:
    times = parse_timestamps("log.csv", pd.Series(texts, dtype=str))
    assert times.dtype == np.int64
    return times.tolist()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["881250949", "-3", "+4"], [881250949, -3, 4]),
        (["881250949.0", "7", "7."], [881250949, 7, 7]),
        (["8.81250949E8", "7"], [881250949, 7]),
        (["9007199254740993", "9007199254740992.0"], [2**53 + 1, 2**53]),
        (["1970-01-02", "1970-01-01T00:00:09"], [86400, 9]),
        (["1970-01-01T01:00:00+01:00", "1969-12-31 23:59:59"], [0, -1]),
        (["1970-01-01T00:00:03.000Z"], [3]),
        (["2200-01-01"], [7258118400]),
    ],
)
def test_what_is_accepted(texts, expected):
    assert parse(*texts) == expected


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["1", ""], "row 2: timestamp is blank"),
        (["1970-01-01", ""], "row 2: timestamp is blank"),
        (["", ""], "row 1: timestamp is blank"),
        (["1", "nan"], "row 2: timestamp 'nan'"),
        (["1", "inf", "2"], "row 2: timestamp 'inf'"),
        (["1.5", "2"], "row 1: timestamp '1.5' is no whole number"),
        (["1", "1e30"], "row 2: timestamp '1e30' is no whole number"),
        (["1", "9223372036854775808"], "row 2: .* does not fit 64 bits"),
        (["yesterday"], "row 1: timestamp 'yesterday' is neither"),
        (["1970-01-01", "1970-13-01"], "row 2: .* is neither"),
        (["1970-01-01T00:00:00.5"], "row 1: .* has a fraction of a second"),
        (["881250949", "1970-01-01"], "row 2: .* as other rows are"),
    ],
)
def test_what_is_refused(texts, said):
    with pytest.raises(InputError, match=f"log.csv: {said}") as caught:
        parse(*texts)
    assert "\n" not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=5), st.booleans())
def test_whole_numbers_stay_exact(values, with_float):
    texts = [str(value) for value in values] + (["3.0"] if with_float else [])
    assert parse(*texts) == values + ([3] if with_float else [])
