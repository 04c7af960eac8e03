"""Sorting of rows by whole numbers: numpy's order, whatever their range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data import stable_order as module
from recdistill.data.stable_order import order_of, stable_order

WIDE = st.integers(-(2**63), 2**63 - 1)
COLUMNS = st.integers(0, 30).flatmap(
    lambda size: st.tuples(*(st.lists(st.integers(0, 3) | WIDE, min_size=size, max_size=size) for _ in range(3)))
)


@given(COLUMNS)
def test_the_order_is_numpys(columns):
    keys = [np.array(column, dtype=np.int64) for column in columns]
    assert stable_order(*keys).tolist() == np.lexsort(keys[::-1]).tolist()


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=30))
def test_numbers_of_half_the_width_do_not_overflow(values):
    keys = [np.array(column, dtype=np.int32) for column in (values, values[::-1])]
    assert stable_order(*keys).tolist() == np.lexsort(keys[::-1]).tolist()


@given(st.lists(st.integers(-50, 50), max_size=30))
def test_both_ways_give_the_same(values):
    column = np.array(values, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patched:
        packed = order_of(column)
        patched.setattr(module, "BITS", -1)
        assert order_of(column).tolist() == packed.tolist()


def test_without_a_key_there_is_no_order():
    with pytest.raises(ValueError, match="no key"):
        stable_order()
