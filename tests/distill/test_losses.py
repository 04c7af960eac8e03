import oracles
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distill.losses import base_loss, dro, output_embedding_distillation
from recdistill.distill.propensity import propensity
from recdistill.errors import InputError


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


def test_embedding_distillation_is_a_mean_over_samples():
    student = torch.tensor([[1.0, 2.0], [0.0, 3.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, -1.0]], requires_grad=True)
    assert output_embedding_distillation(student, teacher, "mse").item() == pytest.approx((4 + 16) / 4)
    loss = output_embedding_distillation(student, teacher, "cosine")
    assert loss.item() == pytest.approx(((1 - 1 / 5**0.5) + 2) / 2)
    loss.backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert output_embedding_distillation(student[:0], teacher[:0]).item() == 0


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["mse", "cosine"]), st.floats(0, 1e4))
def test_embedding_distillation_of_any_finite_embeddings_is_finite_in_any_order(seed, kind, scale):
    generator = torch.Generator().manual_seed(seed)
    student = (scale * torch.randn(6, 4, generator=generator)).requires_grad_()
    teacher = torch.randn(6, 4, generator=generator)
    loss = output_embedding_distillation(student, teacher, kind)
    (gradient,) = torch.autograd.grad(loss, student)
    order = torch.randperm(6, generator=generator)
    torch.testing.assert_close(output_embedding_distillation(student[order], teacher[order], kind), loss)
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(gradient).all())
    same = output_embedding_distillation(teacher, teacher, kind)
    torch.testing.assert_close(same, torch.zeros(()), atol=1e-6, rtol=0)


def test_unusable_arguments_are_refused():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(InputError, match="unknown base loss 'mse'"):
        base_loss(logits, target, "mse")
    with pytest.raises(InputError, match="negative"):
        base_loss(logits, target, "bce")
    with pytest.raises(InputError, match="negative"):
        base_loss(logits, target, "bce", target[:1])
    with pytest.raises(InputError, match="unknown embedding loss"):
        output_embedding_distillation(logits, logits, "l1")
    with pytest.raises(InputError, match="do not fit"):
        output_embedding_distillation(logits, logits[:, :2])
