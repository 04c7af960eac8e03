"""ValidRatio and HitRatio@1 against counts and formulas written by hand."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.answers import answer_metrics, candidate_named, share_metrics

CANDIDATES = ["Toy Story", "Heat", "Star Wars", "Star Wars II"]


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("Heat", 1),
        ("  hEAT\n", 1),
        ("I would say toy story!", 0),
        ("Heat\nToy Story", 1),
        ("\n\nHeat", 1),
        ("Heat or Toy Story", -1),
        ("Casino", -1),
        ("", -1),
        ("Star Wars", 2),
        ("Star Wars II", -1),
    ],
)
def test_an_answer_names_one_candidate_or_none(answer, place):
    assert candidate_named(answer, CANDIDATES) == place


def test_candidates_of_one_title_are_never_told_apart():
    assert candidate_named("Heat", ["heat", "Heat"]) == -1


def test_case_is_folded_and_not_only_lowered():
    assert candidate_named("GROSSE STRASSE", ["Große Straße"]) == 0


def wilson(hits, trials, z=1.959963984540054):
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return centre - half, centre + half


@given(st.integers(2, 300).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_intervals_are_wilsons(counts):
    hits, trials = counts
    found = share_metrics("share", [trial < hits for trial in range(trials)], range(trials))
    low, high = wilson(hits, trials)
    assert found["share"] == hits / trials
    assert found["share_low"] == pytest.approx(low, abs=1e-9)
    assert found["share_high"] == pytest.approx(high, abs=1e-9)


def test_metrics_by_hand():
    found = answer_metrics([0, 3, -1, 2, -1], [0, 1, 1, 2, -1], range(5))
    assert found["valid_ratio"] == 3 / 5
    assert found["hit_ratio_at_1"] == 2 / 3
    assert found["valid_ratio_times_hit_ratio_at_1"] == found["hit_ratio_at_1_of_all"] == 2 / 5
    assert (found["hit_ratio_at_1_low"], found["hit_ratio_at_1_high"]) == pytest.approx(wilson(2, 3))
    assert (found["hit_ratio_at_1_of_all_low"], found["hit_ratio_at_1_of_all_high"]) == pytest.approx(wilson(2, 5))
    assert set(found) == {
        name + bound
        for name in ("valid_ratio", "hit_ratio_at_1", "valid_ratio_times_hit_ratio_at_1", "hit_ratio_at_1_of_all")
        for bound in ("", "_low", "_high")
    }


def test_without_a_valid_answer_nothing_is_hit():
    found = answer_metrics([-1, -1], [0, 1], range(2))
    assert (found["valid_ratio"], found["hit_ratio_at_1"], found["hit_ratio_at_1_of_all"]) == (0, 0, 0)
    assert (found["hit_ratio_at_1_low"], found["hit_ratio_at_1_high"]) == (0, 1)


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_the_product_is_the_share_of_all(answers):
    named, target = zip(*answers, strict=True)
    found = answer_metrics(named, target, range(len(named)))
    assert found["valid_ratio"] * found["hit_ratio_at_1"] == pytest.approx(found["hit_ratio_at_1_of_all"])
    for name in ("valid_ratio", "hit_ratio_at_1", "hit_ratio_at_1_of_all"):
        assert 0 <= found[f"{name}_low"] <= found[name] <= found[f"{name}_high"] <= 1


def test_no_answers_are_refused():
    with pytest.raises(ValueError, match="no answers"):
        answer_metrics([], [], [])


def test_answers_to_one_user_go_together_in_all_intervals():
    # The four answers to a user are alike.
    user = np.repeat(np.arange(60), 4)
    named, target = np.where(user < 40, 0, -1), np.where(user < 20, 0, 1)
    apart, together = (answer_metrics(named, target, of) for of in (range(240), user))
    for name, (hits, users) in {"valid_ratio": (40, 60), "hit_ratio_at_1": (20, 40)}.items():
        assert together[name] == apart[name] == hits / users
        bounds = together[f"{name}_low"], together[f"{name}_high"]
        assert bounds == pytest.approx(wilson(hits, users), abs=0.01)
        assert bounds[1] - bounds[0] > 1.8 * (apart[f"{name}_high"] - apart[f"{name}_low"])
    bounds = together["hit_ratio_at_1_of_all_low"], together["hit_ratio_at_1_of_all_high"]
    assert bounds == pytest.approx(wilson(20, 60), abs=0.01)
