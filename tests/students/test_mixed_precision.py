"""A training step in mixed precision: products of bfloat16 numbers, all else in float32."""

import pytest
import torch

from recdistill.config import DistillConfig, StudentConfig, changed
from recdistill.config.lineage import key_parts
from recdistill.students import training
from recdistill.students.build import shape_of
from recdistill.students.measure import metrics_of, ranks_of
from recdistill.students.training import fit_recommender
from recdistill.training.recorder import NoRecorder

SIZES = {"hidden_size": 16, "batch_size": 64, "negatives": 13, "dropout": 0.0}
CPU = torch.device("cpu")


def first_step(config, drawn_data, teacher=None):
    """The loss of a training's first batch, and the gradient of all parameters, one after the other."""
    _, plan = training.student_plan(config, drawn_data, shape_of(config), teacher, NoRecorder())
    plan.module.train()
    total = plan.step(next(iter(plan.batches(0))))["total"]
    total.backward()
    found = [one.grad for one in plan.module.parameters() if one.grad is not None]
    assert {one.dtype for one in (total, *found)} == {torch.float32}
    return total.detach(), torch.cat([one.to_dense().flatten() for one in found])


@pytest.mark.parametrize("base_loss", ["ce", "bce", "sampled", "gbce"])
@pytest.mark.parametrize("student", ["sasrec", "gru4rec", "caser", "esasrec"])
def test_a_step_is_near_that_in_float32(drawn_data, student, base_loss):
    config = StudentConfig(student=student, base_loss=base_loss, **SIZES)
    assert_near(config, drawn_data)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.1}, {"ranking_loss": "kl"}, {"base_loss": "sampled"}], ids=str)
def test_a_step_of_distillation_is_near_that_in_float32(drawn_data, drawn_answers, options):
    assert_near(DistillConfig(candidate_topk=5, gamma_consistency=0.0, **options, **SIZES), drawn_data, drawn_answers)


def assert_near(config, drawn_data, teacher=None):
    exact, exact_gradient = first_step(config, drawn_data, teacher)
    found, gradient = first_step(changed(config, bf16=True), drawn_data, teacher)
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0.01)
    apart = (gradient - exact_gradient).norm() / exact_gradient.norm()
    # A GRU's products stay in float32, but for those with the items.
    assert 0 < apart < 0.05 or config.student == "gru4rec"


def test_a_student_learns_by_it_and_is_measured_in_float32(drawn_data):
    config = StudentConfig(**SIZES, epochs=8, patience=0, least_epochs=0, bf16=True)
    fitted = fit_recommender(config, drawn_data, recorder=NoRecorder())
    exact = fit_recommender(changed(config, bf16=False), drawn_data, recorder=NoRecorder())
    name = "val/ndcg_at_10"
    by_epoch = [dict(one.progress.history)[7][name] for one in (fitted, exact)]
    assert by_epoch[0] > 0.8 * by_epoch[1] > 0.2
    assert {one.dtype for one in fitted.model.parameters()} == {torch.float32}
    assert any(not torch.equal(a, b) for a, b in zip(fitted.model.parameters(), exact.model.parameters(), strict=True))
    measured = metrics_of("test", ranks_of(fitted.model, drawn_data.test, config.exclude_seen, CPU))
    assert {name: fitted.metrics[name] for name in measured} == measured


def test_runs_of_before_keep_their_keys():
    config = StudentConfig()
    assert "bf16" not in key_parts("backbone", config, "data")["options"]
    assert key_parts("backbone", changed(config, bf16=True), "data")["options"]["bf16"] is True
