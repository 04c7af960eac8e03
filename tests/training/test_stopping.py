"""The rules decide as a plain reading of them does, and as the loop does."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recdistill.training.fit import TrainingPlan, fit
from recdistill.training.stopping import goes_on, kept_epoch, smoothed

VALUES = st.lists(st.integers(0, 12).map(lambda value: value / 8), min_size=1, max_size=25)
RULES = {"patience": st.integers(0, 6), "least_epochs": st.integers(0, 12), "smoothing": st.integers(1, 4)}


def read_plainly(values, patience, least_epochs, smoothing):
    """For each possible end, whether the rule had asked to stop before; then the first best of what was trained."""
    means = [sum(values[max(0, i + 1 - smoothing) : i + 1]) / min(smoothing, i + 1) for i in range(len(values))]
    done = len(values)
    for epochs in range(1, len(values)):
        best = means[:epochs].index(max(means[:epochs]))
        if patience and epochs >= least_epochs and epochs - 1 - best >= patience:
            done = epochs
            break
    return means[:done].index(max(means[:done])), done


@given(VALUES, st.fixed_dictionaries(RULES))
def test_the_rule_is_as_it_reads(values, rule):
    assert kept_epoch(values, **rule) == read_plainly(values, **rule)


@settings(deadline=None, max_examples=60)
@given(VALUES, st.fixed_dictionaries(RULES))
def test_the_loop_decides_by_the_rule(tmp_path_factory, values, rule):
    weight = nn.Parameter(torch.zeros(1))
    scores = iter(values)
    plan = TrainingPlan(
        parameters={"weight": weight},
        optimizer=torch.optim.SGD([weight], lr=1.0),
        batches=lambda epoch: [torch.ones(1)],
        step=lambda batch: {"total": -weight.sum()},
        num_batches=1,
        module=nn.Identity(),
        epochs=len(values),
        validate=lambda: {"val/ndcg_at_10": next(scores)},
        **rule,
    )
    progress = fit(plan, tmp_path_factory.mktemp("fit") / "c", lambda metrics, epoch: None)
    assert (progress.best_epoch, progress.epoch) == kept_epoch(values, **rule)
    # A step adds one: the weight tells which epoch was kept.
    assert weight.item() == progress.best_epoch + 1


def test_a_lucky_epoch_stops_the_raw_metric_and_not_the_smoothed_one():
    values = [0.02, 0.05, 0.15, *(0.10 + 0.002 * epoch for epoch in range(30))]
    assert kept_epoch(values, patience=8) == (2, 11)
    assert kept_epoch(values, patience=8, smoothing=5) == (32, 33)
    assert kept_epoch(values, patience=8, least_epochs=30) == (32, 33)
    assert kept_epoch(values, patience=0) == (32, 33)


def test_few_values_are_smoothed_over_what_there_is():
    assert smoothed([1.0, 2.0], 3) == 1.5
    assert smoothed([9.0, 1.0, 2.0, 3.0], 3) == 2.0
    assert smoothed([1.0, 2.0], 1) == 2.0
    assert goes_on(1000, 0, patience=0)
