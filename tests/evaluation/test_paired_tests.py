import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.paired_tests import holm, paired_tests, seed_variance, sums_by_user

ONES = np.ones(8, dtype=np.int64)


def exact_p_value(differences):
    """Two-sided sign-flip p-value by listing every combination of signs."""
    observed = abs(sum(differences))
    flips = itertools.product((1, -1), repeat=len(differences))
    far = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= observed - 1e-9 for signs in flips]
    return sum(far) / len(far)


@pytest.mark.parametrize(
    "differences",
    [[1, 1, 1, 0, 1, 1, -1, 1], [0.3, -0.2, 0.5, 0.1, 0.4, 0.6, -0.1, 0.2], [1 / 3, 2 / 3, 1 / 3, -1 / 3, 1, 0, 0, 0]],
)
def test_the_permutation_p_value_is_the_listed_one(differences):
    found = paired_tests(np.array(differences)[:, None], ONES, resamples=40_000).p_value[0]
    assert found == pytest.approx(exact_p_value(differences), abs=0.01)


def test_the_difference_is_the_mean_over_samples_not_over_users():
    # One user with three samples, one with a single one.
    user = np.array([0, 0, 0, 1])
    sums = sums_by_user(np.array([[1.0], [1.0], [1.0], [0.0]]), user)
    counts = sums_by_user(np.ones((4, 1)), user)[:, 0]
    assert paired_tests(sums, counts, resamples=100).difference[0] == pytest.approx(3 / 4)


def test_the_interval_is_that_of_the_central_limit():
    differences = np.random.default_rng(0).normal(0.02, 0.3, (2000, 1))
    found = paired_tests(differences, np.ones(2000))
    half = 1.96 * differences.std() / 2000**0.5
    assert found.low[0] == pytest.approx(differences.mean() - half, abs=0.001)
    assert found.high[0] == pytest.approx(differences.mean() + half, abs=0.001)


def test_samples_of_one_user_are_not_independent():
    # The same four answers forty times over are no more evidence than four answers.
    answers = np.array([1.0, 1.0, -1.0, 1.0])
    user = np.repeat(np.arange(4), 40)
    sums = sums_by_user(np.repeat(answers, 40)[:, None], user)
    assert paired_tests(sums, np.full(4, 40)).p_value[0] > 0.5


def test_a_p_value_below_the_permutations_resolution_is_the_hoeffding_bound():
    differences = np.full((400, 1), 0.1) + np.random.default_rng(0).normal(0, 0.05, (400, 1))
    found = paired_tests(differences, np.ones(400), resamples=200).p_value[0]
    assert found == pytest.approx(2 * np.exp(-(differences.sum() ** 2) / (2 * (differences**2).sum())))
    assert found < 1e-9


def test_the_bound_is_never_below_the_listed_p_value():
    differences = [1.0] * 12
    assert paired_tests(np.ones((12, 1)), np.ones(12), resamples=10).p_value[0] >= exact_p_value(differences)


def test_no_difference_has_p_value_one_and_an_empty_interval():
    found = paired_tests(np.zeros((5, 1)), np.ones(5), resamples=50)
    assert (found.p_value[0], found.low[0], found.high[0]) == (1, 0, 0)


def test_the_same_seed_gives_the_same_numbers_and_columns_do_not_touch():
    differences = np.random.default_rng(1).normal(0, 1, (50, 3))
    first, again = (paired_tests(differences, np.ones(50), resamples=500, seed=3) for _ in range(2))
    alone = paired_tests(differences[:, 1:2], np.ones(50), resamples=500, seed=3)
    other = paired_tests(differences, np.ones(50), resamples=500, seed=4)
    for name in ("difference", "low", "high", "p_value"):
        assert getattr(first, name).tolist() == getattr(again, name).tolist()
        assert getattr(first, name)[1] == pytest.approx(getattr(alone, name)[0], abs=1e-6)
    assert first.low.tolist() != other.low.tolist()


def test_no_users_are_refused():
    with pytest.raises(ValueError, match="no users"):
        paired_tests(np.zeros((0, 1)), np.zeros(0))


def test_a_shift_by_seeds_widens_interval_and_p_value():
    differences = np.random.default_rng(2).normal(0.05, 0.3, (500, 1))
    users_only = paired_tests(differences, np.ones(500))
    both = paired_tests(differences, np.ones(500), seed_deviation=0.05, seed_degrees=8)
    assert both.high[0] - both.low[0] > 2 * (users_only.high[0] - users_only.low[0])
    assert users_only.p_value[0] < 0.02 < 0.1 < both.p_value[0]


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_seed_variance_is_the_shift_common_to_all_users(shift):
    generator = np.random.default_rng(3)
    users, runs = 1000, 400
    gains = generator.normal(0, 0.3, (users, 1)) + generator.normal(0, 0.2, (users, runs))
    gains += generator.normal(0, shift, runs)
    variance, degrees = seed_variance([gains], np.ones(users))
    assert degrees == runs - 1
    assert variance**0.5 == pytest.approx(shift, abs=0.004)


def test_single_runs_say_nothing_about_seeds():
    assert seed_variance([np.ones((5, 1)), np.ones((5, 1))], np.ones(5)) == (0.0, 0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_keeps_the_order_and_lies_between_nothing_and_bonferroni(p_values):
    adjusted = holm(p_values)
    assert np.all(adjusted >= p_values)
    assert np.all(adjusted <= np.minimum(1, np.asarray(p_values) * len(p_values)))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 5)), min_size=1, max_size=30))
def test_sums_by_user(pairs):
    user, values = np.array([one for one, _ in pairs]), np.array([value for _, value in pairs])
    expected = [values[user == one].sum() for one in sorted(set(user.tolist()))]
    assert sums_by_user(values[:, None], user)[:, 0].tolist() == pytest.approx(expected)
