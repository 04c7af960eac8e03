import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distill.candidate_weights import (
    candidate_weights,
    confidence_weights,
    consistency_weights,
    position_weights,
)
from recdistill.errors import InputError

GAMMAS = {"gamma_position": 0.3, "gamma_confidence": 0.5, "gamma_consistency": 0.1}


def test_weights_are_the_released_ones(released):
    logits, candidates, distance = (released[name] for name in ("logits", "candidates", "confidence"))
    rows = len(logits)
    found = {
        "weight_position": position_weights(10).expand(rows, 10).float(),
        "weight_confidence": confidence_weights(distance.double()),
        "weight_consistency": consistency_weights(logits, candidates),
        "weight": candidate_weights(logits.double(), candidates, distance, **released.gammas()),
    }
    for name, weights in found.items():
        torch.testing.assert_close(weights, released[name], rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.1, 10), st.tuples(*[st.floats(0.01, 3)] * 3))
def test_weights_are_the_formula_and_sum_to_one(seed, temperature, gammas):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 20, generator=generator, dtype=torch.float64)
    candidates = torch.stack([torch.randperm(20, generator=generator)[:5] for _ in range(4)])
    distance = 3 * torch.rand(4, 5, generator=generator, dtype=torch.float64)
    found = candidate_weights(
        logits,
        candidates,
        distance,
        gamma_position=gammas[0],
        gamma_confidence=gammas[1],
        gamma_consistency=gammas[2],
        temperature=temperature,
    )
    expected = [
        oracles.candidate_weights(*row, gammas, temperature)
        for row in zip(logits.tolist(), candidates.tolist(), distance.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("items", [12, 500, 700, 1300, 5000])
@pytest.mark.parametrize("contiguous", [True, False])
def test_consistency_is_membership_in_the_top(items, contiguous):
    generator = torch.Generator().manual_seed(items)
    logits = torch.randn(6, items, generator=generator)
    logits[:3, -(items % 64)] = 9  # the search leaves no item out at the end of the catalogue
    if not contiguous:
        logits = logits.t().contiguous().t()
    top = logits.topk(10, dim=1).indices
    # Items about the border of the top: those of ranks 6 to 15, so that an error of one rank shows.
    candidates = logits.topk(min(15, items), dim=1).indices[:, -10:]
    expected = (candidates.unsqueeze(2) == top.unsqueeze(1)).any(2)
    assert torch.equal(consistency_weights(logits, candidates) > 0.5, expected)
    assert expected.any()
    assert not expected.all()


def test_consistency_counts_equal_logits_as_in():
    logits = torch.tensor([[1.0, 3.0, 1.0, 0.0]])
    found = consistency_weights(logits, torch.tensor([[2, 3]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]]), atol=1e-7, rtol=0)
    assert consistency_weights(logits[:, :2], torch.tensor([[0, 1, 0]])).min() >= 1


def test_temperature_limits_are_uniform_and_one_hot():
    distance = torch.tensor([[0.4, 0.1, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(confidence_weights(distance, 1e9), torch.full((1, 3), 1 / 3, dtype=torch.float64))
    cold = confidence_weights(distance, 0.02)
    torch.testing.assert_close(cold, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), atol=1e-4, rtol=0)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(-1e4, 1e4), st.floats(1e-6, 1e4), st.floats(0.01, 100))
def test_any_finite_distances_give_rows_that_sum_to_one(seed, centre, spread, temperature):
    """Also scores, which may be negative, though a distance is at least 0."""
    generator = torch.Generator().manual_seed(seed)
    distance = centre + spread * torch.randn(5, 8, generator=generator)
    weights = confidence_weights(distance, temperature)
    assert bool(torch.isfinite(weights).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    order = distance.argsort(dim=1)
    assert bool((weights.gather(1, order).diff(dim=1) <= 0).all())
    moved = confidence_weights(distance.gather(1, order), temperature)
    torch.testing.assert_close(moved, weights.gather(1, order))


def test_scores_below_zero_weigh_by_the_same_formula():
    distance = torch.tensor([[-3.0, 0.5, -7.0]], dtype=torch.float64)
    expected = oracles.normalised([math.exp(-d / 2) + 1e-8 for d in distance[0].tolist()])
    torch.testing.assert_close(confidence_weights(distance, 2.0)[0], torch.tensor(expected, dtype=torch.float64))


def test_surer_candidates_weigh_more_and_positions_decrease():
    assert (position_weights(7).diff() < 0).all()
    distance = torch.linspace(0, 4, 9).unsqueeze(0)
    assert (confidence_weights(distance).diff() < 0).all()


def test_weights_carry_no_gradient():
    logits = torch.randn(2, 30, requires_grad=True)
    distance = torch.rand(2, 4, requires_grad=True)
    weights = candidate_weights(logits, torch.arange(8).view(2, 4), distance, **GAMMAS)
    assert not weights.requires_grad


def test_unusable_arguments_are_refused():
    logits, candidates, distance = torch.zeros(1, 5), torch.tensor([[0, 1]]), torch.zeros(1, 2)
    with pytest.raises(InputError, match="not all 0"):
        candidate_weights(logits, candidates, distance, **dict.fromkeys(GAMMAS, 0.0))
    with pytest.raises(InputError, match="gammas"):
        candidate_weights(logits, candidates, distance, **(GAMMAS | {"gamma_position": -1}))
    with pytest.raises(InputError, match="do not fit"):
        candidate_weights(logits, candidates, distance[:, :1], **GAMMAS)
    for temperature in (0.0, -1.0, math.inf):
        with pytest.raises(InputError, match="temperature"):
            confidence_weights(distance, temperature)
