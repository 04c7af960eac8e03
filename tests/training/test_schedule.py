"""The rate starts low where it warms up, never rises after, and ends at its floor."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.training.schedule import SHAPES, rate_share


@given(st.sampled_from(sorted(SHAPES)), st.integers(2, 300), st.floats(0, 0.9), st.floats(0, 1))
def test_rises_to_the_peak_and_falls_to_the_floor(schedule, total, warmup, floor):
    shares = [rate_share(schedule, done, total, warmup=warmup, floor=floor) for done in range(total + 1)]
    peak = math.floor(warmup * total)
    assert all(0 < share <= 1 for share in shares[:peak])
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[-1] == pytest.approx(1 if schedule == "constant" else floor)
    assert all(min(floor, 1) - 1e-12 <= share <= 1 for share in shares[peak:])


def test_the_shapes_are_a_line_and_half_a_cosine():
    assert [rate_share("linear", done, 4) for done in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert rate_share("cosine", 1, 4) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert rate_share("cosine", 2, 4, floor=0.2) == pytest.approx(0.6)
    assert [rate_share("constant", done, 8, warmup=0.5) for done in range(6)] == [0.2, 0.4, 0.6, 0.8, 1, 1]


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match="schedule=step: must be one of constant, linear, cosine"):
        rate_share("step", 0, 1)
