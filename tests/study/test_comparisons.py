"""Differences between rows, and how sure they are."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recdistill.study.comparisons import PARTS, clustered, corrected, difference, gains_of, paired, undecided


def table(ranks: list[int], among: list[int] | None = None, users: list[int] | None = None) -> pd.DataFrame:
    count = len(ranks)
    return pd.DataFrame(
        {
            "user": [f"u{user}" for user in (users or range(count))],
            "item": [f"i{place % 5}" for place in range(count)],
            "rank": ranks,
            "rank_among_new": among or [0] * count,
            "item_count": [0 if among and among[place] else 50 if not place % 2 else 3 for place in range(count)],
        }
    )


@pytest.mark.parametrize(("clusters", "told"), [(2, False), (9, False), (10, True)])
def test_a_few_equal_differences_are_no_proof(clusters, told):
    found = clustered(np.ones(clusters), np.arange(clusters), -0.1)
    assert (found.p_value, found.p_below) == ((0.0, 0.0) if told else (1.0, 1.0))
    equal = clustered(np.zeros(clusters), np.arange(clusters), -0.1)
    assert (equal.p_value, equal.p_below) == (1.0, 0.0)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_without_clusters_it_is_students_t(values):
    values = np.array(values)
    found = clustered(values, np.arange(len(values)), -0.1)
    if values.std() < 1e-9:
        assert found.deviation < 1e-9
        return
    interval = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(interval)
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert found.p_below == pytest.approx(stats.ttest_1samp(values, -0.1, alternative="greater").pvalue)


def test_clusters_widen_an_interval_as_a_bootstrap_of_clusters_does():
    drawn = np.random.default_rng(0)
    cluster = np.repeat(np.arange(60), drawn.integers(1, 12, size=60))
    values = (drawn.normal(size=60)[cluster] + drawn.normal(size=len(cluster))) / 10
    sums, counts = np.bincount(cluster, values), np.bincount(cluster)
    picks = drawn.integers(60, size=(4000, 60))
    bootstrap = (sums[picks].sum(1) / counts[picks].sum(1)).std()
    assert clustered(values, cluster, 0.0).deviation == pytest.approx(bootstrap, rel=0.05)
    assert clustered(values, np.arange(len(values)), 0.0).deviation < 0.8 * bootstrap


def test_parts_are_of_warm_and_new_targets():
    ranks = table([1, 30, 2, 5], [0, 0, 1, 21])
    found = {part: gains_of(ranks, part)["gain"].tolist() for part in PARTS}
    second, fifth = 1 / math.log2(3), 1 / math.log2(6)
    assert found["all"] == pytest.approx([1, 0, second, fifth])
    assert found["warm"] == pytest.approx([1, 0])
    assert found["sparse"] == pytest.approx([0])
    assert found["new"] == pytest.approx([second, fifth])
    assert found["new_among_new"] == pytest.approx([1, 0])


def test_samples_are_paired_whatever_their_order():
    one = gains_of(table([1, 2, 3, 4, 5, 6], users=[0, 0, 0, 1, 1, 1]), "all")
    shuffled = one.sample(frac=1, random_state=3)
    found = paired(one, shuffled)
    assert len(found) == 6
    assert (found["gain"] == found["gain_against"]).all()
    # A target that comes again for the same user pairs once each.
    twice = pd.concat([one, one], ignore_index=True)
    assert len(paired(twice, twice)) == 12


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_better_row_is_better_and_an_equal_one_is_not_below(seeds):
    drawn = np.random.default_rng(1)
    users = np.repeat(np.arange(80), 5).tolist()
    worse = [table(drawn.integers(1, 40, size=400).tolist(), users=users) for _ in range(seeds)]
    better = [frame.assign(rank=(frame["rank"] + 1) // 2) for frame in worse]
    found = corrected([difference(better, worse, "all", 0.01), difference(worse, worse, "all", 0.01)])
    assert [one.verdict for one in found] == ["better", "not below"]
    assert found[0].seeds == seeds
    assert found[0].samples == 400 * seeds
    assert math.isnan(found[0].by_seed.deviation) == (seeds == 1)
    reverse = corrected([difference(worse, better, "all", 0.01)])[0]
    assert reverse.verdict == "worse"
    assert reverse.difference == pytest.approx(-found[0].difference)
    assert difference(worse, worse, "new", 0.01) is None


def changed(table_of: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The ranks with so many more hits, as a share; fewer where it is below 0."""
    drawn = np.random.default_rng(seed).random(len(table_of))
    hit = (table_of["rank"] <= 20).to_numpy()
    lost, won = hit & (drawn < -share), ~hit & (drawn < share * hit.mean() / (1 - hit.mean()))
    place = 1 + np.arange(len(table_of)) % 20
    return table_of.assign(rank=np.where(lost, 1000, np.where(won, place, table_of["rank"])))


def against_hits(seed: int, count: int = 8000) -> pd.DataFrame:
    """Ranks of samples of which some three in ten are hits, over many users and items."""
    drawn = np.random.default_rng(seed)
    ranks = np.where(drawn.random(count) < 0.3, drawn.integers(1, 21, size=count), 1000)
    found = table(ranks.tolist(), users=(np.arange(count) // 10).tolist())
    return found.assign(item=[f"i{place}" for place in drawn.integers(0, 1000, size=count)])


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        # Users and items are sure that the mean is not below; the seeds are not.
        ((-0.10, 0.12, 0.12), "unclear"),
        ((-0.12, 0.16), "unclear"),
        ((0.0, 0.0, 0.0), "not below"),
        ((0.03, 0.0), "not below"),
        ((0.03,), "better"),
    ],
)
def test_a_seed_that_loses_more_than_the_margin_is_not_ruled_out(shares, verdict):
    against = [against_hits(seed) for seed in range(len(shares))]
    row = [changed(one, share, 7 + seed) for seed, (one, share) in enumerate(zip(against, shares, strict=True))]
    one = difference(row, against, "all", 0.01)
    assert max(one.by_user.p_below, one.by_item.p_below) < 0.01
    assert corrected([one])[0].verdict == verdict


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=4), st.floats(0, 0.1))
@settings(max_examples=25, deadline=None)
def test_what_is_not_below_no_seed_of_two_and_no_interval_of_more_has(shares, margin):
    against = [against_hits(seed, 400) for seed in range(len(shares))]
    row = [changed(one, share, 7 + seed) for seed, (one, share) in enumerate(zip(against, shares, strict=True))]
    one = difference(row, against, "all", margin)
    means = [
        (gains_of(a, "all")["gain"] - gains_of(b, "all")["gain"]).mean() for a, b in zip(row, against, strict=True)
    ]
    loses = min(means) <= -margin * one.against if len(means) == 2 else one.by_seed.p_below >= 0.05
    if np.ptp(means) > 1e-9 or len(means) == 2:
        assert one.p_below == (1.0 if loses else max(one.by_user.p_below, one.by_item.p_below))


def test_not_below_is_corrected_for_all_comparisons_apart_from_better():
    against = [against_hits(0)]
    one = dataclasses.replace(difference(against, against, "all", 0.01), p_value=0.06, p_below=0.02)
    assert one.verdict == "unclear"
    alone = corrected([one])[0]
    assert (alone.verdict, alone.adjusted_below) == ("not below", one.p_below)
    among = corrected([one] * 9)
    assert [other.verdict for other in among] == ["unclear"] * 9
    assert among[0].adjusted_below == pytest.approx(0.18)
    assert among[0].adjusted == pytest.approx(0.54)
    # One that is better for sure does not make the others less sure not to be below, nor the other way round.
    sure = corrected([one, dataclasses.replace(one, p_value=0.0, p_below=1.0)])
    assert [other.adjusted_below for other in sure] == [pytest.approx(0.04), 1.0]
    assert sure[0].verdict == "not below"
    assert corrected([]) == []


@pytest.mark.parametrize(("made", "asked", "verdict"), [(1, 1, "better"), (1, 5, "unclear"), (2, 5, "better")])
def test_one_seed_of_several_decides_nothing(made, asked, verdict):
    drawn = np.random.default_rng(1)
    users = np.repeat(np.arange(80), 5).tolist()
    worse = [table(drawn.integers(1, 40, size=400).tolist(), users=users) for _ in range(made)]
    better = [frame.assign(rank=(frame["rank"] + 1) // 2) for frame in worse]
    one = difference(better, worse, "all", 0.01)
    assert corrected([undecided(one, asked)])[0].verdict == verdict


def test_what_one_item_alone_shows_is_unclear():
    # All of the gain is that of one item of five, over many users.
    worse = table([20] * 500, users=list(range(500)))
    better = worse.assign(rank=np.where(worse["item"] == "i0", 1, 20))
    one = corrected([difference([better], [worse], "all", 0.01)])[0]
    assert one.by_user.p_value < 1e-6
    assert one.by_item.p_value > 0.05
    assert one.verdict == "unclear"


@given(st.integers(2, 9), st.floats(1e-6, 1), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_rounding_makes_no_proof_of_a_few_equal_differences(clusters, value, size):
    found = clustered(np.full(clusters * size, value), np.repeat(np.arange(clusters), size), -0.1)
    assert (found.p_value, found.p_below) == (1.0, 1.0)


@given(st.integers(2, 60), st.integers(1, 60), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_seeds_that_are_equal_agree(count, rank, seeds):
    # As of a row that draws nothing: the same gain each time.
    better, worse = table([rank] * count, users=list(range(count))), table([rank + 1] * count, users=list(range(count)))
    found = difference([better] * seeds, [worse] * seeds, "all", 0.01)
    assert found.seeds_agree
    assert not found.difference or found.by_seed.p_value == 1.0


def test_a_seed_without_a_sample_of_the_part_is_none_of_it():
    drawn = np.random.default_rng(1)
    worse = table(drawn.integers(1, 40, size=400).tolist(), users=np.repeat(np.arange(80), 5).tolist())
    better = worse.assign(rank=(worse["rank"] + 1) // 2)
    often = [frame.assign(item_count=50) for frame in (better, worse)]
    one = difference([better, often[0]], [worse, often[1]], "sparse", 0.01)
    assert one.seeds == 1
    assert corrected([undecided(one, 2)])[0].verdict == "unclear"


@pytest.mark.parametrize("few", ["item", "user"])
def test_what_one_item_or_one_user_shows_is_unclear_and_has_the_other_interval(few):
    drawn = np.random.default_rng(1)
    worse = table(drawn.integers(1, 40, size=400).tolist(), users=np.repeat(np.arange(80), 5).tolist())
    worse[few] = "the only one"
    better = worse.assign(rank=(worse["rank"] + 1) // 2)
    one = corrected([difference([better], [worse], "all", 0.01)])[0]
    known, unknown = (one.by_user, one.by_item) if few == "item" else (one.by_item, one.by_user)
    assert math.isnan(unknown.deviation)
    assert one.wider is known
    assert one.verdict == "unclear"
