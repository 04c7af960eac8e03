"""Intervals of shares and means: SciPy's where samples are independent, and their coverage where they are not."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import binomtest

from recdistill.evaluation.intervals import clustered_interval, share_interval, wilson_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 17), (943, 943), (61, 943)])
def test_intervals_are_scipys(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 17), (943, 943), (61, 943)])
def test_where_each_sample_is_a_user_of_its_own_a_share_has_wilsons(hits, count):
    values = np.arange(count) < hits
    users = np.random.default_rng(0).permutation(count)
    assert share_interval(values, users) == (hits / count, *wilson_interval(hits / count, count))
    assert share_interval(values, [f"u{user}" for user in users]) == share_interval(values, users)


@pytest.mark.parametrize("alike", [0.01, 1.0, 3.0])
@pytest.mark.parametrize("interval", [share_interval, partial(clustered_interval, within=(0, 1))])
def test_the_interval_of_a_share_covers_the_truth_as_often_as_it_says_however_alike_a_users_samples_are(
    alike, interval
):
    drawn, covered, tries = np.random.default_rng(1), 0, 400
    for _ in range(tries):
        users = np.repeat(np.arange(150), drawn.integers(1, 18, 150))
        chance = drawn.beta(0.3 / alike, 0.7 / alike, 150)[users]
        _, low, high = interval(drawn.random(len(users)) < chance, users)
        covered += low <= 0.3 <= high
    assert 0.925 <= covered / tries <= 0.98


def test_without_a_hit_users_count_and_not_their_samples():
    users = np.repeat(np.arange(40), 25)
    share, low, high = share_interval(np.zeros(1000), users)
    assert (share, low) == (0, 0)
    assert wilson_interval(0, 40)[1] <= high < 1.2 * wilson_interval(0, 40)[1]
    assert clustered_interval(np.zeros(1000), users, within=(0, 1)) == (0, 0, high)
    assert clustered_interval(np.full(1000, 5.0), users, within=(0, 5)) == (5, pytest.approx(5 - 5 * high), 5)


def test_a_mean_stays_in_its_range():
    values, users = np.array([0.01, 0.0, 0.9, 0.0, 0.0]), np.arange(5)
    assert clustered_interval(values, users)[1] < 0
    assert clustered_interval(values, users, within=(0, 1))[1] == 0
    assert clustered_interval(1 - values, users, within=(0, 1))[2] == 1


def test_a_single_user_tells_no_interval():
    assert share_interval([1, 0, 1, 0], [3, 3, 3, 3]) == (0.5, 0, 1)
    assert clustered_interval([0.5, 0.25], [3, 3], within=(0, 1)) == (0.375, 0, 1)
    assert clustered_interval([0.5, 0.25], [3, 3]) == (0.375, -np.inf, np.inf)
