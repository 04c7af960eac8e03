import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rich import console

from recdistill.errors import InputError
from recdistill.evaluation.metrics.ndcg import discounted_gains
from recdistill.registry import METRICS
from recdistill.report.compared import EvaluatedSamples, groups_of
from recdistill.report.results import MetricName, compare_groups
from recdistill.report.text import answer


def ndcg(ranks, k):
    return discounted_gains(ranks, k).mean().item()


def test_the_numbers_of_the_main_rows(results, samples):
    row = results.row_of(0)
    good = np.mean([ndcg(torch.from_numpy(samples.ranks[name]), 10) for name in ("good", "good2")])
    plain = np.mean([ndcg(torch.from_numpy(samples.ranks[name]), 10) for name in ("plain", "plain2")])
    assert (row.value, row.baseline_value) == (pytest.approx(good), pytest.approx(plain))
    assert row.difference == pytest.approx(good - plain)
    assert row.relative == pytest.approx((good - plain) / plain)
    assert row.low < row.difference < row.high
    assert results.values["NDCG@10"][0] == pytest.approx(good)
    assert results.deviations["NDCG@10"][0] > 0
    assert math.isnan(results.deviations["NDCG@10"][1])


def test_verdicts(results):
    assert [row.verdict for row in results.rows if row.metric == "NDCG@10"] == ["better", "unclear", "worse"]
    assert results.best == 0
    assert results.tied == []


def test_holm_runs_over_each_table(results):
    for table in (results.rows, results.slices):
        least = min(table, key=lambda row: row.p_value)
        assert least.adjusted == pytest.approx(min(1, least.p_value * len(table)))
    assert len(results.rows) == 3 * 2


def test_subgroups_are_partitions(results):
    for kind in ("history", "popularity"):
        rows = [row for row in results.slices if row.kind == kind and row.group == 0]
        assert sum(row.samples for row in rows) == results.samples
        whole = sum(row.difference * row.samples for row in rows) / results.samples
        assert whole == pytest.approx(results.row_of(0).difference)


def test_two_equal_recommenders_are_tied(make_run, samples):
    groups = groups_of([make_run("plain"), make_run("same", settings={"lam": 0.7})])
    results = compare_groups(groups, samples, MetricName("test", "hr", 10), resamples=300)
    assert results.tied == [1 - results.best]
    assert {row.metric for row in results.slices} == {"HR@10"}


def test_the_best_is_held_against_all_pairs(results):
    # Six pairs of four recommenders: the best was picked by looking.
    assert results.behind[results.best] == 1
    assert all(0 < p_value <= 1 for p_value in results.behind)
    row = results.row_of(0)
    assert results.behind[3] == pytest.approx(min(1, 6 * row.p_value), rel=0.5)


def test_more_seeds_are_more_evidence_but_not_more_users(make_run):
    generator = np.random.default_rng(1)
    difficulty = generator.normal(2.5, 1, 200)
    runs, ranks = [], {}
    for side, gain in (("one", 0.0), ("other", 0.3)):
        for seed in range(8):
            name = f"{side}{seed}"
            noise = generator.normal(0, 1.0, 200)
            ranks[name] = np.clip(np.exp(difficulty - gain + noise), 1, None).astype(np.int64)
            runs.append(make_run(name, seed=seed, settings={"side": side}))
    samples = EvaluatedSamples(ranks, np.arange(200), np.arange(200), np.arange(200))
    metric = MetricName("test", "ndcg", 10)
    alone = compare_groups(groups_of([runs[0], runs[8]]), samples, metric, resamples=2000).row_of(1)
    pooled = compare_groups(groups_of(runs), samples, metric, resamples=2000).row_of(1)
    assert pooled.high - pooled.low < 0.7 * (alone.high - alone.low)
    assert pooled.users == alone.users == 200


def test_popularity_has_no_seeds_to_vary(make_run, samples):
    good = [make_run("good"), make_run("good2", seed=2)]
    widths = []
    for step in ("prepare", "backbone"):
        groups = groups_of([make_run("plain", step=step, settings={}), *good])
        row = compare_groups(groups, samples, MetricName("test", "ndcg", 10), resamples=2000).row_of(1)
        widths.append(row.high - row.low)
    assert widths[0] <= widths[1]


def test_closed_form_recommenders_have_no_seeds_to_vary(make_run, samples):
    # Two seeds far apart, so that a single seed of the other one counts.
    apart = [make_run("good"), make_run("bad", seed=2)]
    widths = []
    for student in ("ease", "sasrec"):
        groups = groups_of([make_run("plain", step="backbone", settings={"student": student}), *apart])
        assert groups[0].is_drawn == (student == "sasrec")
        row = compare_groups(groups, samples, MetricName("test", "ndcg", 10), resamples=2000).row_of(1)
        widths.append(row.high - row.low)
    assert widths[0] < widths[1]


def test_equal_runs_of_a_closed_form_are_no_evidence_of_what_seeds_do(make_run, samples):
    apart = [make_run("good"), make_run("bad", seed=2)]
    found = []
    for count in (1, 8):
        ranks = samples.ranks | {f"ease{seed}": samples.ranks["plain"] for seed in range(count)}
        settings = {"student": "ease"}
        ease = [make_run(f"ease{seed}", step="backbone", settings=settings, seed=seed) for seed in range(count)]
        groups = groups_of([*ease, *apart])
        whole = replace(samples, ranks=ranks)
        found.append(compare_groups(groups, whole, MetricName("test", "ndcg", 10), resamples=2000).row_of(1))
    assert (found[0].low, found[0].high) == pytest.approx((found[1].low, found[1].high), rel=0.02)
    assert found[0].p_value == pytest.approx(found[1].p_value, abs=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "ndcg_at_10",
        "test/mrr_at_10",
        "test/ndcg",
        "train/hr_at_10",
        "test/ndcg_at_0",
        "test/hr_at_10 ",
        "test/map_at_5",
    ],
)
def test_other_metrics_are_refused(text):
    with pytest.raises(InputError, match=r"must be like test/ndcg_at_10.* one of hr_at_10, mrr, ndcg_at_10") as caught:
        MetricName.read(text)
    assert "\n" not in str(caught.value)


def test_a_metric_is_read():
    assert MetricName.read("val/hr_at_20") == MetricName("val", "hr", 20)
    assert str(MetricName("val", "hr", 20)) == "HR@20"
    assert MetricName.read("test/mrr") == MetricName("test", "mrr", None)
    assert str(MetricName("test", "mrr", None)) == "MRR"


def test_a_metric_without_cut_off_decides_beside_hr_and_ndcg(make_run, samples):
    groups = groups_of([make_run("plain"), make_run("good", settings={"lam": 0.7})])
    results = compare_groups(groups, samples, MetricName("test", "mrr", None), resamples=300)
    assert list(results.values) == ["HR@10", "NDCG@10", "MRR"]
    assert results.values["MRR"][0] == pytest.approx((1 / samples.ranks["plain"]).mean())
    assert results.row_of(1).metric == "MRR"
    assert {row.metric for row in results.slices} == {"MRR"}
    assert len(results.rows) == 3


def test_any_registered_metric_decides(make_run, samples, monkeypatch):
    known = METRICS._known()
    monkeypatch.setattr(METRICS, "_declared", dict(known))

    @METRICS.register("halves", cut_offs=(1, 5))
    def halves(ranks, k):
        return (ranks <= k).double() / 2

    metric = MetricName.read("test/halves_at_7")
    groups = groups_of([make_run("plain"), make_run("good", settings={"lam": 0.7})])
    results = compare_groups(groups, samples, metric, resamples=300)
    assert list(results.values) == ["HR@7", "NDCG@7", "HALVES@7"]
    assert results.values["HALVES@7"] == [pytest.approx(value / 2) for value in results.values["HR@7"]]


def test_the_answer_is_a_sentence_a_line(results):
    assert results.answer == "\n".join(answer(results))
    assert results.answer.startswith("distill lam=0.7 has the highest NDCG@10: ")


def drawn(svg, labels):
    """The labels that a picture names, from above."""
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return [text for text in texts if text in labels]


@pytest.mark.parametrize("subgroups", [False, True])
def test_a_plot_is_svg_of_the_gains_the_best_first(results, subgroups):
    labels = [group.label for group in results.groups]
    svg = results.plot(subgroups=subgroups)
    ElementTree.fromstring(svg)
    # The baseline has no gain over itself.
    assert drawn(svg, labels) == ["distill lam=0.7", "distill lam=0.1", "distill lam=9"]
    assert ("popularity: tail" in svg) == subgroups
    assert svg == results.plot(subgroups=subgroups)


@pytest.mark.parametrize("subgroups", [False, True])
def test_a_plot_leaves_recommenders_out(results, subgroups):
    labels = [group.label for group in results.groups]
    svg = results.plot(subgroups=subgroups, leave_out=["distill lam=9"])
    assert drawn(svg, labels) == ["distill lam=0.7", "distill lam=0.1"]
    with pytest.raises(InputError, match=r"leave_out=lam=9: is not compared here; give some of distill lam=0\.7, "):
        results.plot(leave_out=["lam=9"])


def test_text_is_text_in_a_notebook_too(results, monkeypatch):
    expected = str(results)
    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    assert str(results) == expected
    assert "95 % interval" in expected
