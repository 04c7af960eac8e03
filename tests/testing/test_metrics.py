"""Every metric keeps its contract, and a broken one is told why it does not."""

import pytest
import torch
from registered_parts import registries_restored

from recdistill.registry import METRICS
from recdistill.testing import check_metric


@pytest.mark.parametrize("name", METRICS.names())
def test_every_registered_metric(name):
    check_metric(name)
    check_metric(METRICS.get(name))


def test_a_metric_of_ones_own():
    check_metric(lambda ranks, k: torch.where(ranks <= k, 1 - (ranks - 1) / k, 0.0))


def rising(ranks):
    return ranks / 100


def counting(ranks, k):
    return 2.0 * (ranks <= k)


def one_mean(ranks):
    return (1 / ranks).mean()


def not_a_number(ranks):
    return (1 / (ranks - 3)).abs()


def among_others(ranks):
    return (1 / ranks) / (1 / ranks).max()


def drawn(ranks):
    return torch.rand(len(ranks)).sort(descending=True).values


def constant(ranks):
    return torch.ones(len(ranks)) / 2


def from_the_end(ranks, k):
    return (ranks > k) * 1.0


def less_with_more(ranks, k):
    return (ranks <= k) / k


def as_list(ranks):
    return (1 / ranks).tolist()


def in_place(ranks):
    return ranks.sub_(1) < 5


def three_arguments(ranks, k, users):
    return 1 / ranks


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (rising, r"rank 2 gains 0.02, rank 1 only 0.01; a worse rank must not gain more"),
        (from_the_end, r"rank 2 gains 1, rank 1 only 0"),
        (counting, r"gains reach from 0 to 2; bring them into \[0, 1\]"),
        (one_mean, r"gives \[\] for 5 ranks; give one number a sample"),
        (not_a_number, "gives NaN or infinity"),
        (among_others, "changes with the samples beside it"),
        (drawn, "the gain of a sample changes|gives other numbers when called again"),
        (constant, "rank 1 gains 0.5 and rank 60 the same"),
        (less_with_more, "a rank gains less at 5 than at 1; a longer list"),
        (as_list, "gives a list; give a tensor"),
        (in_place, "changes the ranks that it is given"),
        (three_arguments, "takes 3 arguments; a metric takes ranks, and k"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_metric_is_told(metric, said):
    with pytest.raises(AssertionError, match=said) as caught:
        check_metric(metric)
    assert str(caught.value).startswith(metric.__name__)


@pytest.mark.parametrize(
    ("cut_offs", "metric", "said"),
    [
        ((5,), lambda ranks: 1 / ranks, r"is registered with cut_offs=\(5,\) and takes 1 arguments"),
        ((), lambda ranks, k: (ranks <= k) * 1.0, r"is registered with cut_offs=\(\) and takes 2 arguments"),
    ],
)
def test_a_registration_that_does_not_fit_is_told(cut_offs, metric, said):
    with registries_restored():
        METRICS.register("own", cut_offs=cut_offs)(metric)
        with pytest.raises(AssertionError, match=said):
            check_metric("own")


def test_a_scorer_of_constants_gains_nothing_beyond_chance(monkeypatch):
    from recdistill.testing import metrics

    # A rank that lets ties count for the model: a constant scorer would then be the best.
    monkeypatch.setattr(metrics, "rank_of_target", lambda scores, target: torch.ones_like(target))
    with pytest.raises(AssertionError, match="one score for every item gains 1, guessing"):
        check_metric("hr")


def of_the_first_list(lists, k):
    return float(lists.best[0, 0])


def of_whole_lists(lists, k):
    return float((lists.best < lists.num_items).double().mean())


@pytest.mark.parametrize(
    ("function", "said"), [(of_the_first_list, "changes with the order"), (of_whole_lists, "changes with what stands")]
)
def test_a_broken_metric_of_lists_is_told_what_to_mend(function, said):
    with registries_restored():
        METRICS.register(function.__name__, of="lists", cut_offs=(4,), says="none")(function)
        with pytest.raises(AssertionError, match=said):
            check_metric(function.__name__)
