"""How a loss is computed follows from what it reads; the objective itself is never changed."""

import pytest
import torch

from recdistill.config import DistillConfig, StudentConfig, narrow
from recdistill.distillation.objective import build_objective
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.students import loss_path as module
from recdistill.students.build import build_student, shape_of
from recdistill.students.loss_path import held_bytes, loss_path, say_long_validation, say_what_would_pay
from recdistill.students.student import Student

ITEMS = 12


class OwnScores(Student):
    """A student that makes its scores in a way of its own."""

    causal = True

    def forward(self, history, length, row, column):
        return self.items(history)[row, column]

    def logits(self, states):
        return states @ self.item_table().T


def path_of(student=None, **options) -> str:
    config = StudentConfig(**options)
    model = student or build_student(shape_of(config), ITEMS)
    objective = build_objective(config, torch.ones(ITEMS), state_size=model.state_size, teacher=None)
    return loss_path(config, model, objective, distilled=False)


@pytest.mark.parametrize(
    ("base_loss", "path"),
    [("ce", "blocks"), ("sampled", "shared negatives"), ("gbce", "own negatives"), ("bce", "one negative")],
)
def test_the_base_loss_tells_the_path(base_loss, path):
    assert path_of(base_loss=base_loss) == path


def test_scores_are_held_where_a_student_makes_its_own():
    made = build_student(shape_of(StudentConfig()), ITEMS)
    own = OwnScores(made.items, made.state_size, 50, "tied")
    assert path_of(own) == "all scores"


def test_terms_over_all_items_need_blocks():
    config = StudentConfig(base_loss="bce")
    model = build_student(shape_of(config), ITEMS)
    objective = build_objective(config, torch.ones(ITEMS), state_size=model.state_size, teacher=None)
    objective.settings = ObjectiveSettings(base_loss="bce", alpha=0.1, lam=0.0)
    assert loss_path(config, model, objective, distilled=False) == "blocks"
    objective.settings = ObjectiveSettings(base_loss="bce", alpha=0.0, lam=0.5)
    assert loss_path(config, model, objective, distilled=True) == "blocks"
    objective.settings = ObjectiveSettings(base_loss="bce", alpha=0.0, lam=0.0)
    assert loss_path(config, model, objective, distilled=True) == "one negative"
    objective.settings = ObjectiveSettings(base_loss="bce", alpha=0.0, lam=0.5, gamma_consistency=0.0)
    assert loss_path(config, model, objective, distilled=True) == "one negative"


def test_a_line_names_what_would_pay_for_large_catalogues_alone(monkeypatch):
    said = []
    monkeypatch.setattr(module, "notice", said.append)
    config = StudentConfig()
    say_what_would_pay(config, "blocks", 20_000)
    say_what_would_pay(config, "shared negatives", 10**6)
    say_what_would_pay(config, "one negative", 10**6)
    assert not said
    say_what_would_pay(config, "blocks", 10**6)
    assert said.pop() == (
        "base_loss=ce: every step scores 1,000,000 items for 512 samples; "
        "set base_loss=sampled, whose cost does not grow with the catalogue"
    )
    say_what_would_pay(config, "all scores", 10**6)
    assert "3.8 GiB a step" in said.pop()


def test_a_line_names_what_shortens_a_long_validation(monkeypatch):
    said = []
    monkeypatch.setattr(module, "notice", said.append)
    say_long_validation(StudentConfig(), 8_233, 20_000)
    say_long_validation(StudentConfig(validation_samples=20_000), 10**6, 10**6)
    assert not said
    say_long_validation(StudentConfig(), 10**6, 10**6)
    assert "1,000,000 samples ranked among 1,000,000 items; validation_samples=20000" in said.pop()


def test_what_is_held_is_scores_and_their_gradient():
    assert held_bytes(narrow(DistillConfig(), StudentConfig, batch_size=3), 5) == 2 * 3 * 5 * 4
