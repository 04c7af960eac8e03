import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.distillation.propensity import propensity
from recdistill.errors import InputError


def test_is_the_released_propensity(released):
    torch.testing.assert_close(propensity(released["item_count"]), released["propensity"], rtol=1e-12, atol=0)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_is_the_formula(counts):
    expected = torch.tensor(oracles.propensity(counts), dtype=torch.float64)
    torch.testing.assert_close(propensity(torch.tensor(counts)), expected)


def test_counts_that_are_no_counts_are_refused():
    with pytest.raises(InputError, match="negative count"):
        propensity(torch.tensor([1, -1]))
    with pytest.raises(InputError, match=r"\[2, 1\]"):
        propensity(torch.tensor([[1], [1]]))
    with pytest.raises(InputError, match="at least 1"):
        propensity(torch.tensor([], dtype=torch.int64))
