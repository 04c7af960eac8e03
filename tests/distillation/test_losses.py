import math

import oracles
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distillation.losses import (
    base_loss,
    candidate_weights,
    confidence_weights,
    consistency_weights,
    dro,
    plain_loss,
    position_weights,
    ranking_distillation,
    ranking_kl,
)
from recdistill.distillation.propensity import propensity
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError

GAMMAS = {"gamma_position": 0.3, "gamma_confidence": 0.5, "gamma_consistency": 0.1}


def test_bce_is_the_released_one(released, dtype):
    found = base_loss(released["logits"].to(dtype), released["target"], "bce", released["negative"])
    torch.testing.assert_close(found, released["bce"].to(dtype), rtol=1e-6, atol=0)


def test_dro_is_the_released_one(released, dtype):
    found = dro(released["logits"].to(dtype), released["propensity"], released["target"], released.settings["beta"])
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found, released["dro_per_sample"].to(dtype), rtol=rtol, atol=0)


def test_dro_of_many_items_is_that_of_each(released):
    logits, candidates = released["logits"].double(), released["candidates"]
    together = dro(logits, released["propensity"], candidates, 1.5)
    assert together.shape == candidates.shape
    for k in range(candidates.shape[1]):
        alone = dro(logits, released["propensity"], candidates[:, k], 1.5)
        torch.testing.assert_close(together[:, k], alone, rtol=1e-12, atol=0)


def test_cross_entropy_is_that_of_torch(released):
    logits = released["logits"].double().requires_grad_()
    found = base_loss(logits, released["target"], "ce")
    expected = F.cross_entropy(logits, released["target"])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), atol=1e-12, rtol=1e-9
    )


def test_bce_is_the_mean_over_both_logits():
    logits = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.2, 0.1]], dtype=torch.float64)
    found = base_loss(logits, torch.tensor([0, 1]), "bce", torch.tensor([2, 0]))
    rows = logits.tolist()
    expected = oracles.binary_cross_entropy(rows[0], 0, 2) + oracles.binary_cross_entropy(rows[1], 1, 0)
    assert found.item() == pytest.approx(expected / 4)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 20), st.floats(0, 50))
def test_dro_is_the_formula_at_any_scale(seed, beta, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 12, generator=generator, dtype=torch.float64)
    propensities = propensity(torch.randint(50, (12,), generator=generator))
    items = torch.randint(12, (3,), generator=generator)
    expected = [
        oracles.dro(row, propensities.tolist(), item, beta)
        for row, item in zip(logits.tolist(), items.tolist(), strict=True)
    ]
    found = dro(logits, propensities, items, beta)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_dro_does_not_depend_on_the_order_of_items(released):
    logits, items = released["logits"].double(), released["candidates"]
    order = torch.randperm(logits.shape[1], generator=torch.Generator().manual_seed(3))
    moved = dro(logits[:, order], released["propensity"][order], torch.argsort(order)[items])
    torch.testing.assert_close(moved, dro(logits, released["propensity"], items), rtol=1e-12, atol=0)


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


def ranking_of(released, dtype=torch.float64, **changed):
    arguments = {
        "kind": "bce",
        "negative": released["negative"],
        "propensity": released["propensity"],
        "alpha": released.settings["alpha"],
        "beta": released.settings["beta"],
    }
    return ranking_distillation(
        released["logits"].to(dtype), released["candidates"], released["weight"], **(arguments | changed)
    )


def test_ranking_is_the_formula_of_the_paper(released, dtype, tolerance):
    found = ranking_of(released, dtype)
    torch.testing.assert_close(found, released["ranking_per_sample"].to(dtype), rtol=tolerance, atol=0)


def test_ranking_compatible_with_the_release_is_the_released_value(released_with_defects, dtype, tolerance):
    released = released_with_defects
    found = ranking_of(released, dtype, release_compat=True)
    torch.testing.assert_close(found, released["ranking_released"].to(dtype), rtol=tolerance, atol=0)


def test_cross_entropy_of_candidates_is_that_of_torch(released):
    logits, candidates, weights = (released[name].double() for name in ("logits", "candidates", "weight"))
    expected = sum(
        (weights[:, k] * F.cross_entropy(logits, candidates[:, k].long(), reduction="none")).mean()
        for k in range(candidates.shape[1])
    )
    torch.testing.assert_close(ranking_of(released, kind="ce", negative=None, alpha=0.0), expected)


def test_ranking_of_samples_in_any_order_is_the_same(released):
    order = torch.randperm(len(released["logits"]), generator=torch.Generator().manual_seed(2))
    moved = {name: released[name][order] for name in ("logits", "candidates", "weight", "negative")}
    for changed in ({}, {"kind": "ce"}, {"release_compat": True}):
        found = ranking_distillation(
            moved["logits"].double(),
            moved["candidates"],
            moved["weight"],
            **(
                {"kind": "bce", "negative": moved["negative"], "propensity": released["propensity"]}
                | {"alpha": released.settings["alpha"], "beta": released.settings["beta"]}
                | changed
            ),
        )
        torch.testing.assert_close(found, ranking_of(released, **changed), rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_kl_is_the_formula(temperature):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(4, 20, generator=generator, dtype=torch.float64)
    candidates = torch.stack([torch.randperm(20, generator=generator)[:6] for _ in range(4)])
    distance = 2 * torch.rand(4, 6, generator=generator, dtype=torch.float64)
    expected = [
        oracles.kl_of_lists(*row, temperature)
        for row in zip(logits.tolist(), candidates.tolist(), distance.tolist(), strict=True)
    ]
    found = ranking_kl(logits, candidates, distance, temperature)
    assert found.item() == pytest.approx(sum(expected) / 4)


def test_kl_limits_of_the_temperature():
    """Soft: half the variance of the disagreement. Hard: the student's lead over the teacher's best, times T."""
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    candidates = torch.stack([torch.randperm(9, generator=generator)[:5] for _ in range(3)])
    distance = 2 * torch.rand(3, 5, generator=generator, dtype=torch.float64)
    chosen = logits.gather(1, candidates)
    soft = (chosen + distance).var(dim=1, correction=0).mean() / 2
    torch.testing.assert_close(ranking_kl(logits, candidates, distance, 1e4), soft, rtol=1e-3, atol=0)
    lead = chosen.amax(1) - chosen.gather(1, distance.argmin(1, keepdim=True)).squeeze(1)
    assert lead.max() > 0
    hard = ranking_kl(logits, candidates, distance, 1e-4) / 1e-4
    torch.testing.assert_close(hard, lead.mean(), rtol=1e-3, atol=0)


def test_kl_is_zero_with_a_zero_gradient_where_the_student_agrees():
    distance = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    candidates = torch.tensor([[0, 2, 4, 6]] * 3)
    logits = torch.zeros(3, 8, dtype=torch.float64).scatter_(1, candidates, 5 - distance).requires_grad_()
    loss = ranking_kl(logits, candidates, distance, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max().item() < 1e-12


def test_importance_and_distances_get_no_gradient(released):
    logits, candidates = released["logits"].double().requires_grad_(), released["candidates"]
    teacher = released["weight"].clone().requires_grad_()
    (ranking_distillation(logits, candidates, teacher) + ranking_kl(logits, candidates, teacher)).backward()
    assert teacher.grad is None
    assert logits.grad.abs().sum() > 0


def test_the_objective_is_the_sum_of_its_terms(released):
    settings = {name: value for name, value in released.settings.items() if name != "candidate_topk"}
    teacher = TeacherBatch(
        released["candidates"], released["confidence"], torch.ones(len(released["target"]), dtype=torch.bool)
    )
    found = plain_loss(
        ObjectiveSettings(base_loss="bce", **settings),
        released["logits"].double(),
        released["target"],
        teacher,
        negative=released["negative"],
        propensity=released["propensity"],
    )
    base = base_loss(released["logits"].double(), released["target"], "bce", released["negative"])
    robust = released["dro_per_sample"].double().mean()
    assert found["base"].item() == pytest.approx(base.item())
    assert found["dro"].item() == pytest.approx(robust.item())
    total = base + settings["alpha"] * robust + settings["lam"] * released["ranking_per_sample"].double()
    assert found["total"].item() == pytest.approx(total.item(), rel=1e-6)
    assert found["total"].item() == pytest.approx(released["total_per_sample"].item(), rel=1e-6)


def test_unusable_arguments_are_refused(released):
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(InputError, match="negative"):
        base_loss(logits, target, "bce")
    with pytest.raises(InputError, match="negative"):
        base_loss(logits, target, "bce", target[:1])
    candidates, distance = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    with pytest.raises(InputError, match="do not fit"):
        candidate_weights(torch.zeros(1, 5), candidates, distance[:, :1], **GAMMAS)
    for temperature in (0.0, -1.0, math.inf):
        with pytest.raises(InputError, match="temperature"):
            confidence_weights(distance, temperature)
    with pytest.raises(InputError, match="propensity"):
        ranking_of(released, propensity=None)
    with pytest.raises(InputError, match="negative"):
        ranking_of(released, negative=None)
    with pytest.raises(InputError, match="do not fit"):
        ranking_distillation(released["logits"], released["candidates"], released["weight"][:, 1:])
    with pytest.raises(InputError, match="do not fit"):
        ranking_kl(released["logits"], released["candidates"], released["confidence"][1:])
    with pytest.raises(InputError, match="temperature"):
        ranking_kl(released["logits"], released["candidates"], released["confidence"], 0.0)


def test_a_small_temperature_leaves_the_surest_alone_in_float32():
    """As a ranking teacher's: over a catalogue even its best candidate is unlikely."""
    p = torch.tensor([[0.06, 0.04, 0.03, 0.02, 0.015, 0.012, 0.01, 0.009, 0.008, 0.007]])
    best = [float(confidence_weights(-p.log(), temperature)[0, 0]) for temperature in (1.0, 0.5, 0.25, 0.1, 0.05, 0.01)]
    assert best == sorted(best)
    assert best[-1] == pytest.approx(1)
    # p^(1/T), but for the floor, which is far below.
    cold = confidence_weights(-p.log(), 0.1)
    torch.testing.assert_close(cold, torch.softmax(p.log() / 0.1, dim=1), atol=1e-4, rtol=0)
    unlikely = confidence_weights(-(p / 1e6).log(), 0.01)
    assert unlikely[0, 0] == pytest.approx(1)


def test_the_temperature_1_is_the_release_to_the_last_bit():
    distance = 5 * torch.rand(20, 10, generator=torch.Generator().manual_seed(0))
    released = torch.exp(-distance) + 1e-8
    assert torch.equal(confidence_weights(distance), released / released.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("temperature", [1.0, 100.0, 1e4, 1e6])
def test_kl_in_float32_is_that_in_float64(temperature):
    generator = torch.Generator().manual_seed(0)
    logits, distance = torch.randn(64, 100, generator=generator), 3 + 3 * torch.rand(64, 10, generator=generator)
    candidates = torch.stack([torch.randperm(100, generator=generator)[:10] for _ in range(64)])
    given = [logits.clone().requires_grad_(), logits.double().requires_grad_()]
    found = [ranking_kl(one, candidates, distance.to(one), temperature) for one in given]
    assert [one.dtype for one in found] == [torch.float32, torch.float64]
    assert float(found[0].detach()) == pytest.approx(float(found[1].detach()), rel=1e-4)
    for loss in found:
        loss.backward()
    assert given[0].grad.dtype == torch.float32
    torch.testing.assert_close(given[0].grad.double(), given[1].grad, rtol=1e-4, atol=1e-9)
