"""Recommenders compared in memory as their runs would be."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_data import write_csv

from recdistill.config import BaselineConfig, DataConfig, StudentConfig
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.evaluate import Ranked
from recdistill.report.compared import groups_of
from recdistill.report.in_memory import Evaluated, compare_evaluated, compare_fitted
from recdistill.report.results import MetricName, compare_groups
from recdistill.students.measure import Fitted


def evaluated(samples, of, **changes):
    values = {"name": of, "step": "distill", "seed": 1, "settings": {"lam": 0.5}, "fingerprint": "f"}
    values |= {"ranks": samples.ranks[of], "user": samples.user, "data": "drawn"}
    values |= {"history_length": samples.history_length, "item_count": samples.item_count, "id": of}
    return Evaluated(**(values | changes))


def test_recommenders_in_memory_are_compared_as_their_runs_are(make_run, samples):
    runs = [
        make_run("good", settings={"lam": 0.7}, baseline_id="plain"),
        make_run("good2", settings={"lam": 0.7}, seed=2, baseline_id="plain"),
        make_run("plain", step="backbone", settings={}),
    ]
    expected = compare_groups(groups_of(runs), samples, MetricName("test", "hr", 5), resamples=300, seed=3)
    given = [
        evaluated(samples, "good", name="distill", settings={"lam": 0.7}, baseline="plain"),
        evaluated(samples, "good2", name="distill", settings={"lam": 0.7}, seed=2, baseline="plain"),
        evaluated(samples, "plain", name="backbone", step="backbone", settings={}),
    ]
    found = compare_evaluated(given, "test/hr_at_5", resamples=300, seed=3)
    assert found.rows == expected.rows
    assert found.slices == expected.slices
    assert found.values == expected.values
    assert [group.label for group in found.groups] == ["distill", "backbone"]


def test_users_are_ids_of_any_kind_and_names_may_be_missing(samples):
    users = np.array([f"u{number:03d}" for number in range(len(samples.user))])
    given = [evaluated(samples, name, name="distill", id="", user=users) for name in ("good", "plain")]
    results = compare_evaluated(given, resamples=300)
    assert results.users == len(users)
    assert [group.label for group in results.groups] == ["distill seed=1 #1", "distill seed=1 #2"]
    # Where none is held against another by itself, the first is the baseline.
    assert results.row_of(1).verdict == "worse"


def test_the_results_read_as_text_and_as_a_frame(samples):
    given = [
        evaluated(samples, "good", name="mine", settings={"lam": 0.7}, baseline="plain"),
        evaluated(samples, "plain", name="plain", step="backbone", settings={}),
    ]
    results = compare_evaluated(given, resamples=300)
    said = str(results)
    row = results.row_of(0)
    assert f"{row.low:+.4f} {row.high:+.4f}" in said
    assert f"mine has the highest NDCG@10: {row.value:.4f}" in said
    assert "\x1b" not in said
    assert max(map(len, said.partition("\n\n")[0].splitlines())) <= 100
    frame = results.frame()
    assert frame.loc[frame["metric"] == "NDCG@10", "difference"].iloc[0] == row.difference


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fingerprint": "g"}, "runs of different data or splits"),
        ({"exclude_seen": False}, "exclude_seen=False"),
        ({"id": "plain"}, "plain: stands 2 times"),
        ({"ranks": np.zeros(300, dtype=np.int64)}, "good: give one rank of at least 1"),
        ({"ranks": np.ones(299, dtype=np.int64)}, "good: give one rank of at least 1"),
        ({"item_count": np.zeros(300, dtype=np.int64)}, r"plain \(300 samples\) and good \(300 samples\) ranked"),
    ],
)
def test_what_cannot_be_compared_in_memory_is_one_line(samples, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        compare_evaluated([evaluated(samples, "plain"), evaluated(samples, "good", **changes)])
    assert "\n" not in str(caught.value)


def test_one_recommender_is_refused(samples):
    with pytest.raises(InputError, match="got 1 recommenders; give at least two"):
        compare_evaluated([evaluated(samples, "plain")])


@dataclass
class Trained:
    """What `recdistill.api` gives, with ranks that nobody trained."""

    step: str
    config: StudentConfig
    settings: dict
    data: SequenceData
    fitted: Fitted


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(DataConfig(**write_csv(tmp_path_factory.mktemp("data"))))


def trained(data, seed, settings, ranks):
    nothing = torch.empty(len(ranks), 0, dtype=torch.int64)
    parts = [Ranked(torch.as_tensor(values), nothing) for values in (ranks[::-1].copy(), ranks)]
    return Trained("backbone", BaselineConfig(seed=seed), settings, data, Fitted(None, None, None, *parts))


def test_trained_recommenders_are_compared_on_the_part_of_the_metric(data):
    assert len(data.validation) == len(data.test)
    ranks = np.arange(1, len(data.test) + 1)
    given = [trained(data, 1, {"student": "ease"}, ranks), trained(data, 2, {"student": "sasrec"}, np.ones_like(ranks))]
    results = compare_fitted(given, resamples=300)
    assert [group.label for group in results.groups] == ["backbone student=ease", "backbone student=sasrec"]
    assert results.values["HR@10"] == [pytest.approx((ranks <= 10).mean()), 1.0]
    assert results.groups[1].baseline == 0
    assert results.groups[0].runs[0].data == f"{data.name}, {data.split}"
    assert results.users == len(np.unique(data.test.user))
    reversed_ranks = compare_fitted(given, "val/mrr", resamples=300)
    assert reversed_ranks.values["MRR"][0] == pytest.approx((1 / ranks).mean())
    assert reversed_ranks.metric.part == "val"
    histories = {row.subgroup: row.samples for row in results.slices if row.kind == "history"}
    assert sum(histories.values()) == len(data.test)


def test_recommenders_of_other_data_are_refused(data, tmp_path):
    other = load_data(DataConfig(**write_csv(tmp_path, seed=5)))
    given = [trained(one, 1, {}, np.arange(1, len(one.test) + 1)) for one in (data, other)]
    with pytest.raises(InputError, match="runs of different data or splits"):
        compare_fitted(given)
