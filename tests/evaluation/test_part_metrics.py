"""Metrics of all, trained and new targets by hand, and the chance level against random orders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from interaction_logs import log_of

from recdistill.config import DataConfig
from recdistill.data.load import split_data
from recdistill.evaluation.evaluate import Ranked, rank_samples
from recdistill.evaluation.part_metrics import chance_ndcg, part_metrics
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
    found = part_metrics("test", ranked, data)
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
        found = part_metrics("val", Ranked(ranks, NONE, among), data)
        assert found.keys() == {f"val/{name}" for name in metric_names()}


def test_without_trained_targets_there_are_no_warm_ones(data):
    alone = replace(data, test=data.test.subset(np.isin(data.test.targets, data.new_test)))
    found = part_metrics("test", ranked_by_popularity(alone), alone)
    assert not [name for name in found if name.startswith("test/warm/")]
    assert found["test/new/mrr"] == found["test/mrr"]


def test_an_unknown_part_is_an_error(data):
    with pytest.raises(KeyError):
        part_metrics("training", Ranked(torch.ones(1), NONE), data)


@pytest.mark.parametrize("count", [1, 5, 20, 30])
def test_chance_is_the_mean_of_all_ranks(count):
    ranks = torch.arange(1, count + 1)
    assert chance_ndcg(count, 20) == pytest.approx(metrics_from_ranks(ranks)["ndcg_at_20"])
