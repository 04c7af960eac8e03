import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distillation.loss_terms import TermContext
from recdistill.distillation.projection import projection_layer
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.distillation.terms.output import OutputOptions, OutputTerm, output_embedding_distillation
from recdistill.errors import InputError


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


def test_unusable_embeddings_are_refused():
    states = torch.zeros(2, 3)
    with pytest.raises(InputError, match="unknown embedding loss"):
        output_embedding_distillation(states, states, "l1")
    with pytest.raises(InputError, match="do not fit"):
        output_embedding_distillation(states, states[:, :2])


def batch(distilled, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = len(distilled)
    teacher = TeacherBatch(
        torch.zeros(samples, 1, dtype=torch.int64),
        torch.zeros(samples, 1),
        torch.tensor(distilled),
        torch.randn(samples, size, generator=generator),
    )
    return torch.randn(samples, 3, generator=generator), teacher


def loss_of(term, states, teacher):
    return term(torch.zeros(len(states), 9), torch.zeros(len(states), dtype=torch.int64), states, teacher)


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_is_the_mean_over_all_samples_with_0_for_those_not_distilled(kind):
    states, teacher = batch([True, False, True, False, False])
    torch.manual_seed(3)
    term = OutputTerm(OutputOptions(output_loss=kind), TermContext(9, 3, 5))
    alone = [
        output_embedding_distillation(term.projection(states[[i]]), teacher.sequence_embedding[[i]], kind).item()
        for i in (0, 2)
    ]
    assert loss_of(term, states, teacher).item() == pytest.approx(sum(alone) / 5)


def test_nothing_distilled_is_0_with_a_gradient_of_0():
    states, teacher = batch([False] * 4)
    term = OutputTerm(OutputOptions(), TermContext(9, 3, 5))
    loss = loss_of(term, states, teacher)
    loss.backward()
    assert loss.item() == 0
    assert term.projection.weight.grad.abs().max().item() == 0


def test_the_projection_draws_from_the_random_state_without_advancing_it():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    term = OutputTerm(OutputOptions(), TermContext(9, 3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(term.projection.weight, projection_layer(3, 5).weight)


def test_a_teacher_without_sequence_embeddings_is_refused():
    with pytest.raises(InputError, match="sequence_embeddings=true, or set output_weight=0"):
        OutputTerm(OutputOptions(), TermContext(9, 3, None))
    states, _ = batch([True])
    term = OutputTerm(OutputOptions(), TermContext(9, 3, 5))
    with pytest.raises(InputError, match="needs the teacher's sequence embeddings"):
        loss_of(term, states, None)
