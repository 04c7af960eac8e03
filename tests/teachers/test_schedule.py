"""The learning rate of a teacher, and the points of its curve."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.config import TeacherConfig
from recdistill.teachers.schedule import CURVE_POINTS, curve_of, rate_share


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_learning_rate_rises_in_a_line_and_falls_to_a_hundredth(total, warmup):
    shares = [rate_share(done, total, warmup) for done in range(total)]
    rising = warmup * total
    assert all(0.01 <= share <= 1 for share in shares)
    for done in range(1, total):
        if done < rising:
            assert shares[done] - shares[done - 1] == pytest.approx(0.99 / rising)
        elif done - 1 >= rising:
            assert shares[done] <= shares[done - 1]
    if rising <= total - 1:
        assert shares.index(max(shares)) in (math.floor(rising), math.ceil(rising))
        assert rate_share(total, total, warmup) == pytest.approx(0.01)


def test_warm_up_and_cosine_at_chosen_steps():
    assert [rate_share(done, 100, 0.1) for done in (0, 5, 10, 55, 100)] == pytest.approx([0.01, 0.505, 1, 0.505, 0.01])


@given(st.integers(0, 500_000), st.integers(1, 4), st.integers(1, 4096))
def test_the_curve_has_few_points_and_spends_the_budget(budget, accumulation, tokens_per_batch):
    config = TeacherConfig(token_budget=budget, accumulation=accumulation, tokens_per_batch=tokens_per_batch)
    points, batches = curve_of(config)
    assert points <= CURVE_POINTS
    assert batches % accumulation == 0
    spent, point = points * batches * tokens_per_batch, batches * tokens_per_batch
    assert budget <= spent < budget + point + accumulation * tokens_per_batch
    assert bool(points) == bool(budget)
