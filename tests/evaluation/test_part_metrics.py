"""Metrics of all, trained and new targets by hand, and the chance level against random orders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interaction_logs import log_of

from recdistill.config import DataConfig
from recdistill.data.load import split_data
from recdistill.data.samples import Samples
from recdistill.evaluation.evaluate import Ranked, rank_samples
from recdistill.evaluation.part_metrics import CHANCE, RANKED_AMONG, chance_ndcg, items_left, part_metrics
from recdistill.evaluation.popularity import popularity_scores
from recdistill.evaluation.rank_metrics import metric_names, metrics_from_ranks

NONE = torch.empty(0, 0, dtype=torch.int64)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    rows = [(user, int(item), time) for user in range(40) for time, item in enumerate(random.integers(30, size=25))]
    return split_data(log_of(rows), DataConfig(new_items=0.3))


def ranked_by_popularity(data):
    return rank_samples(
        popularity_scores(torch.as_tensor(data.item_count)),
        data.test,
        num_items=data.num_items,
        max_length=1,
        among=data.new_test,
    )


def test_groups_are_means_over_their_own_samples(data):
    ranked = ranked_by_popularity(data)
    found = part_metrics("test", ranked, data, exclude_seen=True)
    new = np.isin(data.test.targets, data.new_test)
    warm = data.item_count[data.test.targets] > 0
    assert 0 < new.sum() < len(new)
    groups = {
        "": ranked.ranks,
        "warm/": ranked.ranks[torch.from_numpy(warm)],
        "new/": ranked.ranks[torch.from_numpy(new)],
        "new_among_new/": ranked.among[torch.from_numpy(new)],
    }
    for group, ranks in groups.items():
        for name, value in metrics_from_ranks(ranks).items():
            assert found.pop(f"test/{group}{name}") == pytest.approx(value)
    assert found == {
        "test/new_among_new/chance_ndcg_at_20": chance_ndcg(len(data.new_test), 20),
        "test/new_samples": new.sum(),
    }


def test_without_new_targets_there_is_nothing_more(data):
    ranks = torch.arange(1, len(data.validation) + 1)
    for among in (None, torch.zeros_like(ranks)):
        found = part_metrics("val", Ranked(ranks, NONE, among), data, exclude_seen=True)
        assert found.keys() == {f"val/{name}" for name in metric_names()}


def test_without_trained_targets_there_are_no_warm_ones(data):
    alone = replace(data, test=data.test.subset(np.isin(data.test.targets, data.new_test)))
    found = part_metrics("test", ranked_by_popularity(alone), alone, exclude_seen=True)
    assert not [name for name in found if name.startswith("test/warm/")]
    assert found["test/new/mrr"] == found["test/mrr"]


def test_an_unknown_part_is_an_error(data):
    with pytest.raises(KeyError):
        part_metrics("training", Ranked(torch.ones(1), NONE), data, exclude_seen=True)


@pytest.mark.parametrize("count", [1, 5, 20, 30])
def test_chance_is_the_mean_of_all_ranks(count):
    ranks = torch.arange(1, count + 1)
    assert chance_ndcg(count, 20) == pytest.approx(metrics_from_ranks(ranks)["ndcg_at_20"])


@pytest.fixture(scope="module")
def later():
    """Items that come up late, again and again: histories of test hold new items, and targets that they hold."""
    random = np.random.default_rng(3)
    rows = []
    for time in range(60):
        for user in range(30):
            rows.append((user, int(random.integers(time, 12 + time)), 30 * time + user))
    return split_data(log_of(rows), DataConfig(split="chronological"))


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("part", ["val", "test"])
def test_chance_is_what_random_scores_reach_where_histories_hold_new_items(later, part, exclude_seen):
    samples, new = {"val": (later.validation, later.new_validation), "test": (later.test, later.new_test)}[part]
    generator = torch.Generator().manual_seed(1)

    def random_scores(history, length, row, column):
        return torch.rand(len(history), later.num_items, generator=generator)

    found = []
    for _ in range(200):
        options = {"num_items": later.num_items, "max_length": 5, "among": new, "exclude_seen": exclude_seen}
        ranked = rank_samples(random_scores, samples, **options)
        found.append(part_metrics(part, ranked, later, exclude_seen=exclude_seen))
    reached = np.array([metrics[f"{part}/new_among_new/ndcg_at_20"] for metrics in found])
    chance = found[0][f"{part}/{CHANCE}"]
    assert abs(reached.mean() - chance) < 4 * reached.std() / len(reached) ** 0.5
    assert (f"{part}/{RANKED_AMONG}" in found[0]) == exclude_seen
    if exclude_seen:
        is_new = np.flatnonzero(np.isin(samples.targets, new))
        left = [len(set(new) - set(samples.items[samples.start[one] : samples.end[one]])) for one in is_new]
        assert items_left(samples, is_new, new, later.num_items).tolist() == left
        assert found[0][f"{part}/{RANKED_AMONG}"] == pytest.approx(np.mean(left))
        assert samples.target_seen[is_new].any()
        # Far enough from that of all new items for these random orders to tell.
        assert abs(reached.mean() - chance_ndcg(len(new), 20)) > 8 * reached.std() / len(reached) ** 0.5
    else:
        assert chance == chance_ndcg(len(new), 20)


@given(st.integers(0, 10_000), st.integers(1, 700))
@settings(max_examples=20, deadline=None)
def test_items_left_are_counted_by_history(seed, count):
    random = np.random.default_rng(seed)
    items = random.integers(0, 9, size=50)
    start = random.integers(0, 48, size=count)
    end = np.array([random.integers(one + 1, 50) for one in start])
    samples = Samples(items, start, end, np.zeros(count, dtype=np.int64))
    chosen, index = np.flatnonzero(random.random(9) < 0.5), np.flatnonzero(random.random(count) < 0.9)
    left = [len(set(chosen) - set(items[start[one] : end[one]])) for one in index]
    assert items_left(samples, index, chosen, 9).tolist() == left
