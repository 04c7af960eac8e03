"""Checks of a metric: whoever writes one calls `check_metric` on it and learns what to mend."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recdistill.evaluation.ranking import rank_of_target
from recdistill.evaluation.recommended_lists import RecommendedLists
from recdistill.registry import METRICS

CATALOGUE = 60
CUT_OFFS = (1, 5, 10, 20)  # of a metric that is not registered


def check_metric(metric: str | Callable[..., Tensor]) -> None:
    """Check that a metric keeps its contract: a pure function of ranks to gains in [0, 1], best at rank 1.

    One that is registered with ``of="lists"`` is a pure function of all recommended lists together to one number.

    Args:
        metric: its name, or the function. One that is not registered is tried with cut-offs 1, 5, 10 and 20 where
            it takes a second argument.

    Raises:
        AssertionError: the metric breaks the contract; the message says how, and what to change.
    """
    function = METRICS.get(metric) if isinstance(metric, str) else metric
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "the metric")
    cut_offs = _cut_offs(name, function)
    if _is_of_lists(function):
        for each in cut_offs:
            _check_lists(f"{name} at {each}", function, each)
        return
    curves = {}
    for k in cut_offs or (None,):
        arguments = () if k is None else (k,)
        said = name if k is None else f"{name} at {k}"
        _check_gains(said, function, arguments)
        curves[k] = _gains(said, function, arguments, torch.arange(1, CATALOGUE + 1))
        _check_curve(said, curves[k])
        _check_ties(said, function, arguments, curves[k])
    for small, large in itertools.pairwise(cut_offs):
        assert bool((curves[small] <= curves[large]).all()), (
            f"{name}: a rank gains less at {large} than at {small}; a longer list cannot make a sample worse"
        )


def _cut_offs(name: str, function: Callable[..., Tensor]) -> tuple[int, ...]:
    """The cut-offs that the metric is registered with, ascending."""
    taken = len(inspect.signature(function).parameters)
    assert taken in (1, 2), f"{name}: takes {taken} arguments; a metric takes ranks, and k where it has cut-offs"
    try:
        registered: tuple[Any, ...] = METRICS.declaration(METRICS.name_of(function)).about.get("cut_offs", ())
    except KeyError:
        registered = CUT_OFFS if taken == 2 else ()
    assert bool(registered) == (taken == 2), (
        f"{name}: is registered with cut_offs={registered} and takes {taken} arguments; "
        "with cut-offs it takes ranks and k, without only ranks"
    )
    return tuple(sorted(registered))


def _is_of_lists(function: Callable[..., Any]) -> bool:
    """Whether the metric is registered as one of recommended lists."""
    try:
        return bool(METRICS.declaration(METRICS.name_of(function)).about.get("of") == "lists")
    except KeyError:
        return False


def _check_lists(said: str, function: Callable[..., Any], k: int) -> None:
    """One finite number of all lists, whatever their order and what stands below the cut-off."""
    draw = torch.Generator().manual_seed(k)
    best = torch.stack([torch.randperm(CATALOGUE, generator=draw)[: 2 * k] for _ in range(7)])
    best[3, k // 2 :] = CATALOGUE  # a shorter list
    count = torch.randint(1, 50, (CATALOGUE,), generator=draw)
    vectors = torch.nn.functional.normalize(torch.randn(CATALOGUE, 4, generator=draw), dim=1)
    lists, given = RecommendedLists(best, count, vectors), best.clone()
    found = float(function(lists, k))
    assert math.isfinite(found), f"{said}: gives {found:g} for lists of {2 * k} items; give a finite number"
    assert float(function(lists, k)) == found, (
        f"{said}: gives another number when called again; a metric draws no random numbers and keeps no state"
    )
    others = {
        "the order of the lists": RecommendedLists(best.flip(0), count, vectors),
        f"what stands below place {k}": RecommendedLists(best[:, :k], count, vectors),
    }
    for what, other in others.items():
        assert math.isclose(float(function(other, k)), found, rel_tol=1e-6), f"{said}: changes with {what}"
    assert torch.equal(best, given), f"{said}: changes the lists that it is given; work on a copy"


def _gains(said: str, function: Callable[..., Tensor], arguments: tuple[int, ...], ranks: Tensor) -> Tensor:
    """The gains as float64, one finite number a sample."""
    given = ranks.clone()
    found = function(given, *arguments)
    assert isinstance(found, Tensor), f"{said}: gives a {type(found).__name__}; give a tensor, a number a sample"
    assert found.shape == ranks.shape, (
        f"{said}: gives {list(found.shape)} for {len(ranks)} ranks; give one number a sample, the mean is taken later"
    )
    assert bool(found.isfinite().all()), f"{said}: gives NaN or infinity for ranks of 1 to {CATALOGUE}"
    assert torch.equal(given, ranks), f"{said}: changes the ranks that it is given; work on a copy"
    return found.double()


def _check_gains(said: str, function: Callable[..., Tensor], arguments: tuple[int, ...]) -> None:
    """A sample's gain depends on its own rank alone, and is the same each time."""
    ranks = torch.tensor([3, 1, CATALOGUE, 7, 1])
    together = _gains(said, function, arguments, ranks)
    alone = torch.cat([_gains(said, function, arguments, ranks[place : place + 1]) for place in range(len(ranks))])
    assert torch.equal(together, alone), (
        f"{said}: the gain of a sample changes with the samples beside it; compute it from its own rank alone"
    )
    assert torch.equal(together, _gains(said, function, arguments, ranks)), (
        f"{said}: gives other numbers when called again; a metric draws no random numbers and keeps no state"
    )


def _check_curve(said: str, curve: Tensor) -> None:
    """In [0, 1], highest at rank 1, never growing with the rank. ``curve`` [V] is the gain of ranks 1 .. V."""
    low, high = curve.min().item(), curve.max().item()
    assert 0 <= low <= high <= 1, f"{said}: gains reach from {low:g} to {high:g}; bring them into [0, 1]"
    worse = (curve[1:] > curve[:-1]).nonzero().flatten()
    assert not len(worse), (
        f"{said}: rank {int(worse[0]) + 2} gains {curve[worse[0] + 1]:g}, rank {int(worse[0]) + 1} only "
        f"{curve[worse[0]]:g}; a worse rank must not gain more"
    )
    assert curve[0] > curve[-1], (
        f"{said}: rank 1 gains {curve[0]:g} and rank {CATALOGUE} the same; a metric must tell the best from the worst"
    )


def _check_ties(said: str, function: Callable[..., Tensor], arguments: tuple[int, ...], curve: Tensor) -> None:
    """A model that gives every item one score gains no more than guessing does."""
    target = torch.arange(CATALOGUE)
    ranks = rank_of_target(torch.zeros(CATALOGUE, CATALOGUE), target)
    constant, chance = _gains(said, function, arguments, ranks).mean().item(), curve.mean().item()
    assert constant <= chance or math.isclose(constant, chance), (
        f"{said}: a model with one score for every item gains {constant:g}, guessing {chance:g}; "
        "ties count against a model, so its targets have the last rank"
    )
