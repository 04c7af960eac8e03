"""Values of any type as text."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.text_columns import text, text_of
from recdistill.errors import InputError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"),
        (7.0, "7"),
        (np.float32(7), "7"),
        (-0.0, "0"),
        (7.5, "7.5"),
        (2.0**53, "9007199254740992.0"),
        (" 007 ", "007"),
        (Decimal("7"), "7"),
        (np.int64(7), "7"),
        (True, "True"),
        (float("inf"), "inf"),
        (float("nan"), ""),
        (np.float64("nan"), ""),
        (10**30, "1" + "0" * 30),
        (" Amélie ".encode(), "Amélie"),
    ],
)
def test_text_of_a_value(value, expected):
    assert text(value) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), unique=True))
def test_whole_floats_stay_apart(values):
    assert len({text(float(value)) for value in values}) == len(values)


@pytest.mark.parametrize("kind", ["Int64", "Float64", "float64", "object", "category", "float32"])
def test_missing_values_are_blank(kind):
    column = pd.Series([1, None, 2], dtype="object" if kind == "object" else "Int64").astype(kind)
    assert text_of(column, "item", "x").tolist() == ["1", "", "2"]


def test_bytes_that_are_no_text_are_refused():
    assert text_of(pd.Series([b"7", b"8"]), "item", "x").tolist() == ["7", "8"]
    with pytest.raises(
        InputError, match=r"^x: column 'item' holds bytes that are no UTF-8 text; write text or numbers$"
    ):
        text_of(pd.Series([b"7", b"\xff"]), "item", "x")


def test_lists_are_no_ids():
    with pytest.raises(InputError, match=r"^x: column 'item' holds lists or the like; give text or numbers$"):
        text_of(pd.Series([[1], [2]]), "item", "x")
