import pytest
import torch
from torch import nn

from recdistill.config import BaselineConfig, DistillConfig, StudentConfig, changed
from recdistill.distillation.fused import fused_loss
from recdistill.distillation.objective import Objective, build_objective
from recdistill.distillation.projection import projection_layer
from recdistill.distillation.propensity import propensity
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.distillation.terms.output import output_embedding_distillation
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS

TRAINING, ITEMS, COUNT, STATE, TEACHER_STATE = 30, 20, 4, 6, 5
ITEM_COUNT = 1 + torch.arange(ITEMS)


def make_teacher(with_states=True):
    generator = torch.Generator().manual_seed(0)
    covered = torch.rand(TRAINING, generator=generator) < 0.7
    sample = covered.nonzero().squeeze(1)
    return TeacherAnswers(
        covered=covered,
        ranking=torch.stack([torch.randperm(ITEMS, generator=generator)[:COUNT] for _ in range(TRAINING)]),
        distance=torch.rand(TRAINING, COUNT, generator=generator),
        item_embedding=torch.randn(ITEMS, 8, generator=generator),
        sample=sample,
        sequence_embedding=torch.randn(len(sample), TEACHER_STATE, generator=generator) if with_states else None,
        llm="tiny",
        covered_share=len(sample) / TRAINING,
    )


@pytest.fixture
def batch():
    """Logits, targets, states, the teacher's batch, a negative and what is excluded."""
    generator = torch.Generator().manual_seed(1)
    teacher, sample = make_teacher(), torch.randperm(TRAINING, generator=generator)[:12]
    logits = torch.randn(12, ITEMS, generator=generator).requires_grad_()
    states = torch.randn(12, STATE, generator=generator).requires_grad_()
    target, negative = (torch.randint(ITEMS, (12,), generator=generator) for _ in range(2))
    excluded = (torch.rand(12, ITEMS, generator=generator) < 0.2).nonzero(as_tuple=True)
    of_batch = teacher.batch(sample, teacher.covered[sample], "cpu")
    return (logits, target, states, of_batch), {"negative": negative, "excluded": excluded}


def built(config, teacher):
    return build_objective(config, ITEM_COUNT, state_size=STATE, teacher=teacher)


@pytest.mark.parametrize("base", ["ce", "bce"])
def test_a_student_without_a_teacher_learns_the_base_loss_alone(base, batch):
    (logits, target, states, _), others = batch
    expected = fused_loss(ObjectiveSettings(base_loss=base), logits, target, **others)
    for config, teacher in (
        (StudentConfig(base_loss=base), None),
        (BaselineConfig(base_loss=base), make_teacher()),
        (DistillConfig(base_loss=base, alpha=0.5, output_weight=1.0), None),
    ):
        objective = built(config, teacher)
        found = objective(logits, target, states, **others)
        assert list(found) == ["total", "base", "dro", "ranking"]
        assert torch.equal(found["total"], expected["total"])
        assert found["dro"] == found["ranking"] == 0
        assert list(objective.parameters()) == []


def test_all_options_of_distillation_reach_the_loss(batch):
    options = {
        "base_loss": "bce",
        "lam": 0.9,
        "alpha": 0.4,
        "beta": 1.3,
        "gamma_position": 0.2,
        "gamma_confidence": 0.6,
        "gamma_consistency": 0.3,
        "temperature": 1.7,
        "release_compat": True,
    }
    (logits, target, states, teacher), others = batch
    weight = propensity(ITEM_COUNT).float()
    found = built(DistillConfig(**options), make_teacher())(logits, target, states, teacher, **others)
    expected = fused_loss(ObjectiveSettings(**options), logits, target, teacher, propensity=weight, **others)
    assert torch.equal(found["total"], expected["total"])
    listwise = {"ranking_loss": "kl", "temperature": 1.7}
    kl = built(DistillConfig(**listwise), make_teacher())(logits, target, states, teacher, **others)
    expected = fused_loss(ObjectiveSettings(lam=0.5, **listwise), logits, target, teacher, propensity=weight, **others)
    assert torch.equal(kl["total"], expected["total"])
    # None of the options is without effect here.
    for name in options.keys() - {"base_loss"}:
        config = changed(DistillConfig(**options), **{name: getattr(DistillConfig(), name)})
        other = built(config, make_teacher())(logits, target, states, teacher, **others)
        assert not torch.equal(other["total"], found["total"]), name


def test_the_output_term_is_added_last_with_its_weight(batch):
    (logits, target, states, teacher), others = batch
    config = DistillConfig(output_weight=0.3, output_loss="mse", alpha=0.2)
    torch.manual_seed(5)
    objective = built(config, make_teacher())
    torch.manual_seed(5)
    projection = projection_layer(STATE, TEACHER_STATE)
    found = objective(logits, target, states, teacher, **others)
    plain = built(changed(config, output_weight=0.0), make_teacher())(logits, target, states, teacher, **others)
    chosen = teacher.distilled
    output = chosen.float().mean() * output_embedding_distillation(
        projection(states[chosen]), teacher.sequence_embedding[chosen], "mse"
    )
    assert torch.equal(found["output"], output)
    assert torch.equal(found["total"], plain["total"] + 0.3 * output)
    assert "output" not in plain
    found["total"].backward()
    assert all(parameter.grad.any() for parameter in objective.parameters())
    assert states.grad[chosen].any()
    assert not states.grad[~chosen].any()
    assert [name for name, _ in objective.named_parameters()] == [
        "terms.output.projection.weight",
        "terms.output.projection.bias",
    ]


def test_building_leaves_the_random_state():
    """Else a student would draw other numbers for having a loss term more."""
    before = torch.get_rng_state()
    built(DistillConfig(output_weight=1.0), make_teacher())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_propensity_moves_with_the_objective_and_is_not_kept():
    objective = built(DistillConfig(alpha=0.5), make_teacher())
    torch.testing.assert_close(objective.propensity, propensity(ITEM_COUNT).float())
    assert objective.state_dict() == {}
    assert objective.to(torch.float64).propensity.dtype == torch.float64


def test_a_users_term_joins_with_its_weight(batch, registered):
    @LOSS_TERMS.register("entropy")
    def entropy(logits, target, states, teacher):
        log_probs = torch.log_softmax(logits, dim=1)
        return (log_probs.exp() * log_probs).sum(dim=1).mean()

    (logits, target, states, teacher), others = batch
    plain = built(DistillConfig(), make_teacher())(logits, target, states, teacher, **others)
    config = DistillConfig(entropy_weight=0.25, output_weight=0.5)
    objective = built(config, make_teacher())
    found = objective(logits, target, states, teacher, **others)
    assert list(found) == ["total", "base", "dro", "ranking", "entropy", "output"]
    assert found["entropy"].item() == pytest.approx(entropy(logits, target, states, teacher).item())
    expected = plain["total"] + 0.25 * found["entropy"] + 0.5 * found["output"]
    torch.testing.assert_close(found["total"], expected)
    assert {name for name, value in found.items() if value.requires_grad} == {"total"}


def test_a_term_that_is_no_finite_scalar_is_one_line(batch, registered):
    LOSS_TERMS.register("rows")(lambda logits, target, states, teacher: logits.sum(dim=1))
    LOSS_TERMS.register("broken")(lambda logits, target, states, teacher: logits.mean() * torch.inf)
    (logits, target, states, teacher), others = batch
    for name in ("rows", "broken"):
        objective = built(DistillConfig(**{f"{name}_weight": 1.0}), make_teacher())
        with pytest.raises(InputError, match=f"loss term {name}") as caught:
            objective(logits, target, states, teacher, **others)
        assert "\n" not in str(caught.value)


def test_a_teacher_that_does_not_fit_a_term_is_refused_when_the_objective_is_built():
    message = "output_weight=0.5: this teacher kept no sequence embeddings; make one with sequence_embeddings=true"
    with pytest.raises(InputError, match=message):
        built(DistillConfig(output_weight=0.5), make_teacher(with_states=False))
    assert built(DistillConfig(), make_teacher(with_states=False)) is not None


@pytest.mark.parametrize("name", ["base", "total", "keys"])
def test_names_that_the_objective_uses_are_refused(name):
    with pytest.raises(InputError, match=f"loss term {name}: the objective uses this name"):
        Objective(ObjectiveSettings(), ITEM_COUNT, {name: nn.Identity()}, {name: 1.0})


def test_the_teachers_batch_is_asked_for(batch):
    (logits, target, states, _), others = batch
    with pytest.raises(InputError, match="lam is not 0"):
        built(DistillConfig(), make_teacher())(logits, target, states, **others)


class Fails(nn.Module):
    def __init__(self, options, context):
        super().__init__()
        raise KeyError("size")


def test_what_a_users_term_raises_is_one_line(batch, registered):
    LOSS_TERMS.register("fails")(Fails)
    LOSS_TERMS.register("divides")(lambda logits, target, states, teacher: 1 / 0)
    (logits, target, states, teacher), others = batch
    with pytest.raises(InputError, match=r"^fails_weight=1\.0: loss term 'fails' \(test_objective\.py:\d+\): KeyError"):
        built(DistillConfig(fails_weight=1.0), make_teacher())
    objective = built(DistillConfig(divides_weight=1.0), make_teacher())
    with pytest.raises(
        InputError, match=r"^loss term 'divides' \(test_objective\.py:\d+\): ZeroDivisionError"
    ) as caught:
        objective(logits, target, states, teacher, **others)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
