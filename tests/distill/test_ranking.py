import oracles
import pytest
import torch
import torch.nn.functional as F

from recdistill.distill.ranking import ranking_distillation, ranking_kl
from recdistill.errors import InputError


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


def test_is_the_formula_of_the_paper(released, dtype, tolerance):
    found = ranking_of(released, dtype)
    torch.testing.assert_close(found, released["ranking_per_sample"].to(dtype), rtol=tolerance, atol=0)


def test_compatible_with_the_release_is_the_released_value(released_with_defects, dtype, tolerance):
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


def test_samples_may_come_in_any_order(released):
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


def test_weights_and_distances_get_no_gradient(released):
    logits, candidates = released["logits"].double().requires_grad_(), released["candidates"]
    teacher = released["weight"].clone().requires_grad_()
    (ranking_distillation(logits, candidates, teacher) + ranking_kl(logits, candidates, teacher)).backward()
    assert teacher.grad is None
    assert logits.grad.abs().sum() > 0


def test_unusable_arguments_are_refused(released):
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
