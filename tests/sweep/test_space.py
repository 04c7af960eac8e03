"""What a space suggests, and the options that its trials share."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.config import DistillConfig, changed
from recdistill.errors import InputError
from recdistill.sweep.space import Objective, Parameter, Space, base_config
from recdistill.sweep.space_file import read_space

OBJECTIVES = (Objective("val/ndcg_at_20", "maximize"),)


def space_of(folder: Path, parameters: str, fixed: str = "") -> Space:
    path = folder / "space.yaml"
    path.write_text(f"objective: val/ndcg_at_20\n{fixed}parameters:\n{parameters}")
    return read_space(path)


def test_conditional_options_are_suggested_only_where_they_apply(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "  selection_policy: {choices: [all, random]}\n"
        "  selection_fraction: {low: 0.1, high: 0.9, unless: {selection_policy: all}}\n",
    )
    for policy, names in (("all", {"selection_policy"}), ("random", {"selection_policy", "selection_fraction"})):
        trial = optuna.trial.FixedTrial({"selection_policy": policy, "selection_fraction": 0.5})
        assert set(space.suggest(trial)) == names


def test_a_condition_on_an_option_that_does_not_apply_does_not_hold(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        "  student: {choices: [sasrec, caser]}\n"
        "  gate: {choices: [linear, mlp], only: {student: sasrec}}\n"
        "  lam: {low: 0, high: 1, only: {gate: mlp}}\n",
    )
    trial = optuna.trial.FixedTrial({"student": "caser", "gate": "mlp", "lam": 0.5})
    assert space.suggest(trial) == {"student": "caser"}


@pytest.fixture(scope="module")
def shipped() -> list[tuple[Space, DistillConfig]]:
    """The spaces that come with the package, each with the options that its trials change."""
    folder = Path(__file__).parents[2] / "sweeps"
    names = ("distill", "new_items", "students", "teacher", "quick")
    spaces = [read_space(folder / f"{name}.yaml") for name in names]
    return [(space, base_config(space, DistillConfig())) for space in spaces]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_trials_are_valid_options(shipped: list[tuple[Space, DistillConfig]], seed: int) -> None:
    for space, base in shipped:
        study = optuna.create_study(
            directions=[o.direction for o in space.objectives], sampler=optuna.samplers.RandomSampler(seed=seed)
        )
        values = space.suggest(study.ask())
        changed(base, **values)
        assert {p.name for p in space.parameters if p.applies(values)} == set(values)
        assert all(p.contains(values[p.name]) for p in space.parameters if p.name in values)


def test_fixed_options_yield_to_the_command(tmp_path: Path) -> None:
    space = space_of(tmp_path, "  lam: {low: 0, high: 1}\n", "fixed: {epochs: 7, alpha: 0.25}\n")
    assert base_config(space, DistillConfig()).epochs == 7
    base = base_config(space, DistillConfig(epochs=3))
    assert (base.epochs, base.alpha) == (3, 0.25)


@pytest.mark.parametrize(
    ("parameters", "fixed", "given"),
    [
        ("  base_loss: {choices: [ce, sampled]}\n  negatives: {low: 16, high: 64}\n", "", {}),
        ("  alpha: {low: 0, high: 1}\n  beta: {low: 0.5, high: 2}\n", "", {}),
        ("  base_loss: {choices: [ce, sampled]}\n", "fixed: {negatives: 64}\n", {}),
        ("  base_loss: {choices: [ce, sampled]}\n", "", {"negatives": 64}),
    ],
)
def test_an_option_that_some_trials_do_not_read_may_be_there(
    tmp_path: Path, parameters: str, fixed: str, given: dict[str, int]
) -> None:
    space = space_of(tmp_path, parameters, fixed)
    base = base_config(space, DistillConfig(**given))
    if "negatives" not in parameters and "beta" not in parameters:
        assert changed(base, base_loss="sampled").negatives == 64
        assert changed(base, base_loss="ce").negatives == 64


@pytest.mark.parametrize(
    ("parameters", "fixed", "given", "said"),
    [
        ("  negatives: {low: 16, high: 64}\n", "", {}, r"yaml:3: negatives: is of base_loss=sampled or gbce, which"),
        ("  lam: {low: 0, high: 1}\n", "fixed: {rate_floor: 0.5}\n", {},
         r"space.yaml:2: rate_floor=0.5: is of schedule=linear or cosine, which no trial has; set that, or leave"),
        ("  lam: {low: 0, high: 1}\n", "", {"beta": 2.0}, r"^beta=2.0: is of alpha above 0, which no trial has"),
    ],
)  # fmt: skip
def test_an_option_that_no_trial_reads_is_found_before_the_start(
    tmp_path: Path, parameters: str, fixed: str, given: dict[str, float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        base_config(space_of(tmp_path, parameters, fixed), DistillConfig(**given))


def test_a_searched_option_cannot_be_given(tmp_path: Path) -> None:
    space = space_of(tmp_path, "  lam: {low: 0, high: 1}\n")
    with pytest.raises(InputError, match=r"^lam=0.7: is searched by .*space\.yaml:3; leave it out"):
        base_config(space, DistillConfig(lam=0.7))


def test_combinations_that_do_not_fit_are_found_before_the_start(tmp_path: Path) -> None:
    parameters = "  lora_rank: {choices: [8, 16]}\n  experts: {choices: [2, 3]}\n"
    with pytest.raises(InputError, match=r"space\.yaml:4: experts=3: must divide lora_rank"):
        base_config(space_of(tmp_path, parameters), DistillConfig())
    with pytest.raises(InputError, match=r"space\.yaml:2: experts=3: must divide lora_rank"):
        base_config(space_of(tmp_path, "  lam: {low: 0, high: 1}\n", "fixed: {experts: 3}\n"), DistillConfig())


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            "  item_init: {choices: [random, views]}\n  views: {choices: [tfidf, teacher], only: {item_init: views}}\n",
            "4: views=teacher: an undistilled student has no teacher",
        ),
        ("  refit: {choices: [true, false]}\n", "3: refit=true: leaves nothing to measure on"),
    ],
)
def test_what_a_sweep_cannot_answer_is_found_before_the_start(tmp_path: Path, parameters: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"space\.yaml:{said}"):
        base_config(space_of(tmp_path, parameters), DistillConfig())


def test_the_default_options_are_a_trial_where_the_space_holds_them(tmp_path: Path) -> None:
    parameters = "  lam: {low: 0, high: 1}\n  selection_policy: {choices: [all, random]}\n"
    conditional = "  selection_fraction: {low: 0.1, high: 0.9, only: {selection_policy: random}}\n"
    space = space_of(tmp_path, parameters + conditional)
    assert space.defaults(DistillConfig(lam=0.5)) == {"lam": 0.5, "selection_policy": "all"}
    assert space.defaults(DistillConfig(lam=1.5)) is None
    assert space.defaults(DistillConfig(selection_policy="coverage", selection_fraction=0.5)) is None


def test_a_step_is_part_of_the_space() -> None:
    parameter = Parameter("lam", float, 0.0, 1.0, step=0.1)
    assert parameter.contains(0.3)
    assert not parameter.contains(0.35)
    assert not parameter.contains(1.1)


def test_what_a_study_depends_on_is_not_the_file(tmp_path: Path) -> None:
    first = space_of(tmp_path, "  lam: {low: 0, high: 1}\n")
    second = space_of(tmp_path, "\n  # a comment\n  lam:\n    low: 0.0\n    high: 1.0\n")
    third = space_of(tmp_path, "  lam: {low: 0, high: 2}\n")
    assert first.described() == second.described()
    assert first.described() != third.described()


POLICY = "  selection_policy: {choices: [all, random]}\n"
FRACTION = "  selection_fraction: {low: 0.1, high: 0.9"


@pytest.mark.parametrize(
    ("parameters", "fixed", "line"),
    [
        (POLICY, "", 3),
        (POLICY, "fixed: {selection_fraction: 1.0}\n", 4),
        ("  lam: {low: 0, high: 1}\n", "fixed:\n  selection_policy: random\n", 3),
        # At one end of its interval.
        (POLICY + "  selection_fraction: {low: 0.1, high: 1.0}\n", "", 3),
        # Where another option leaves it at its default.
        ("  student: {choices: [sasrec, caser]}\n" + POLICY + FRACTION + ", only: {student: sasrec}}\n", "", 4),
        (POLICY + FRACTION + ", only: {selection_policy: all}}\n", "", 3),
    ],
)
def test_a_policy_that_would_choose_nothing_is_found_before_the_start(
    tmp_path: Path, parameters: str, fixed: str, line: int
) -> None:
    said = rf"space\.yaml:{line}: selection_policy=random: chooses nothing at selection_fraction=1; give .* below 1$"
    with pytest.raises(InputError, match=said):
        base_config(space_of(tmp_path, parameters, fixed), DistillConfig())


@pytest.mark.parametrize(
    ("parameters", "fixed"),
    [
        (POLICY, "fixed: {selection_fraction: 0.5}\n"),
        (POLICY + FRACTION + "}\n", ""),
        (POLICY + FRACTION + ", unless: {selection_policy: all}}\n", ""),
        ("  student: {choices: [sasrec, caser]}\n" + POLICY + FRACTION + ", only: {selection_policy: random}}\n", ""),
    ],
)
def test_a_policy_that_always_chooses_is_accepted(tmp_path: Path, parameters: str, fixed: str) -> None:
    assert base_config(space_of(tmp_path, parameters, fixed), DistillConfig()).selection_policy == "all"


def test_a_fixed_policy_beside_a_searched_fraction_has_a_default(tmp_path: Path) -> None:
    space = space_of(tmp_path, FRACTION + "}\n", "fixed: {selection_policy: random}\n")
    base = base_config(space, DistillConfig())
    assert (base.selection_policy, base.selection_fraction) == ("random", 0.9)
    assert space.defaults(base) == {"selection_fraction": 0.9}


def test_in_a_large_space_the_first_options_are_tried_too(tmp_path: Path) -> None:
    names = "lam alpha ed_weight gamma_position gamma_confidence gamma_consistency dropout output_weight weight_decay"
    others = "".join(f"  {name}: {{low: 0, high: 0.5}}\n" for name in f"{names} lora_dropout warmup".split())
    first = "  lora_rank: {choices: [8, 16]}\n  experts: {choices: [2, 4, 3]}\n"
    with pytest.raises(InputError, match=r"space\.yaml:4: experts=3: must divide lora_rank=8"):
        base_config(space_of(tmp_path, first + others), DistillConfig())
