"""Names of runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.config import (
    BaselineConfig,
    CompareConfig,
    DataConfig,
    DistillConfig,
    MainConfig,
    SweepConfig,
    TeacherConfig,
)
from recdistill.config.run_names import MOST, changes_name, fitting, run_name
from recdistill.config.steps import STEPS


@pytest.mark.parametrize(
    ("step", "config", "name"),
    [
        ("distill", DistillConfig(), "sasrec distilled · lam 0.5 · seed 1"),
        (
            "distill",
            DistillConfig(student="gru4rec", lam=2, alpha=0.1, seed=3),
            "gru4rec distilled · lam 2 · alpha 0.1 · seed 3",
        ),
        ("teacher", TeacherConfig(token_budget=80_000), "teacher smollm2-135m · 80k tokens"),
        (
            "teacher",
            TeacherConfig(llm="/models/llama-2/", token_budget=100_000, seed=2),
            "teacher llama-2 · 100k tokens · seed 2",
        ),
        ("main", MainConfig(), "main ml-100k · seed 1"),
        ("backbone", BaselineConfig(), "sasrec undistilled · seed 1"),
        ("backbone", BaselineConfig(student="ease", seed=2), "ease · seed 2"),
        ("prepare", DataConfig(max_users=40), "data ml-100k · max_users 40"),
        ("compare", CompareConfig(metric="test/hr_at_20"), "compare hr_at_20"),
        ("sweep", SweepConfig(trials=5), "sweep quick · trials 5 · seed 1"),
    ],
)
def test_a_name_tells_what_was_asked(step, config, name):
    assert run_name(step, config) == name


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_a_name(step):
    name = run_name(step, STEPS[step]())
    assert 0 < len(name) <= MOST
    assert "{" not in name


@given(st.text(max_size=80), st.lists(st.text(min_size=1, max_size=30), max_size=8), st.text(max_size=10))
def test_a_name_has_room(head, told, seed):
    name = fitting(head, told, seed)
    assert len(name) <= MOST
    if len(head) < 30:
        assert name.startswith(head)
        assert name.endswith(seed)


def test_a_trial_tells_what_it_changed():
    assert (
        changes_name("trial 3", {"lam": 0.123456, "selection_policy": "all"})
        == "trial 3 · lam 0.123 · selection_policy all"
    )
    assert len(changes_name("trial 3", {f"option{number}": number for number in range(20)})) <= MOST
