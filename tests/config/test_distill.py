"""Options of distillation: losses of candidates by their names, and what would leave nothing to learn."""

from dataclasses import dataclass, fields

import pytest
from registered_parts import registries_restored

from recdistill.config import DistillConfig
from recdistill.config.base import changed, config_of, option_table
from recdistill.config.command_line import parse
from recdistill.config.lineage import compared_settings, run_key
from recdistill.config.option import option
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS


def test_an_old_name_is_the_new_one_in_every_place() -> None:
    old, new = DistillConfig(ranking_loss="ranking"), DistillConfig(ranking_loss="base")
    assert old == new == DistillConfig()
    assert old.values()["ranking_loss"] == "base"
    assert run_key("distill", old, "data") == run_key("distill", new, "data")
    assert run_key("distill", DistillConfig(ranking_loss="ce"), "data") != run_key("distill", new, "data")
    kept = {"ranking_loss": "ranking"}
    assert config_of(DistillConfig, kept) == new
    assert compared_settings(DistillConfig, kept, {}) == compared_settings(DistillConfig, {}, {})
    assert changed(new, ranking_loss="ranking") == new
    option_table(DistillConfig)["ranking_loss"].check("ranking")
    assert parse(DistillConfig, "distill", ["--ranking_loss", "ranking"]) == new


def test_a_name_that_never_was_is_refused() -> None:
    with pytest.raises(InputError, match="ranking_loss=rankings: must be one of base, bce, ce, kl"):
        DistillConfig(ranking_loss="rankings")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_weight": 0.0, "lam": 0.0}, "base_weight=0: leaves nothing to learn at lam=0"),
        ({"base_loss": "sampled", "ranking_loss": "bce"}, "ranking_loss=bce: reads other items than base_loss=sampled"),
        ({"base_loss": "bce", "release_compat": True, "ranking_loss": "ce"}, "give both"),
        (
            {"teacher_shuffle": "vectors", "item_init": "views", "views": "teacher+tfidf"},
            "teacher_shuffle=vectors: .* leave teacher out of views, or deal rankings alone",
        ),
    ],
)
def test_losses_that_do_not_go_together_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        DistillConfig(**options)


def test_losses_without_a_weight_refuse_nothing() -> None:
    gammas = {"gamma_position": 0, "gamma_confidence": 0, "gamma_consistency": 0}
    for options in ({"base_loss": "sampled", "ranking_loss": "ce", "lam": 0}, {"lam": 0, **gammas}):
        config = DistillConfig(**options)
        ObjectiveSettings(**{spec.name: getattr(config, spec.name) for spec in fields(ObjectiveSettings)})


@pytest.mark.parametrize("name", ["team/films", "films:2", " ", "..", "/films"])
def test_a_name_that_the_registry_refuses_is_told_at_once(name: str) -> None:
    with pytest.raises(InputError, match=r"register=.*the registry takes no such name"):
        DistillConfig(register=name)


def test_distillation_alone_may_be_a_loss_term() -> None:
    assert DistillConfig(base_weight=0.0, lam=0.0, output_weight=0.5).base_weight == 0
    assert DistillConfig(base_weight=0.0, lam=0.5).base_weight == 0


@pytest.mark.parametrize(
    ("options", "mark"),
    [
        ({}, None),
        ({"temperature": 2.0}, None),
        ({"temperature": 0.5}, "temperature"),
        ({"temperature": 0.5, "lam": 0.0}, None),
        ({"temperature": 0.5, "gamma_confidence": 0.0}, None),
        ({"temperature": 2.0, "ranking_loss": "kl"}, "temperature"),
        ({"ranking_loss": "kl"}, None),
        ({"base_loss": "bce"}, "top K of bce"),
        ({"base_loss": "bce", "ranking_loss": "ce"}, None),
        ({"base_loss": "bce", "ranking_loss": "kl"}, None),
        ({"base_loss": "bce", "mask_seen": False}, None),
        ({"base_loss": "bce", "exclude_seen": False}, None),
        ({"base_loss": "bce", "release_compat": True}, None),
        ({"base_loss": "bce", "gamma_consistency": 0.0}, None),
        ({"selection_fraction": 0.5}, "draws of samples"),
        ({"base_loss": "sampled"}, "losses over shared negatives"),
        ({"base_loss": "gbce", "temperature": 0.5}, "losses over shared negatives, temperature, negatives of gbce"),
        ({"base_loss": "gbce", "lam": 0.0, "alpha": 0.0}, "negatives of gbce"),
        ({"base_loss": "sampled", "output": "linear", "lam": 0.0, "alpha": 0.0}, "bias of an output"),
        ({"output": "linear"}, None),
    ],
)
def test_results_that_were_wrong_are_marked_and_no_others(options: dict[str, object], mark: str | None) -> None:
    assert DistillConfig(**options).also_in_key().get("mended") == mark


@pytest.mark.parametrize("option_name", [name for name in option_table(DistillConfig) if name.endswith("_weight")])
def test_a_loss_term_takes_no_weight_over(option_name):
    name = option_name.removesuffix("_weight")
    if name in LOSS_TERMS:
        return

    def given():
        LOSS_TERMS.register(name)(lambda logits, target, states, teacher: logits.mean())
        DistillConfig()

    with registries_restored(), pytest.raises(InputError, match=f"^loss term '{name}': .*; give .* another name$"):
        given()


@dataclass(frozen=True, kw_only=True)
class WeighsAnother:
    """Own options of a term, one of which is named as the weight of another term."""

    own_weight: float = option(0.0, "x", least=0)


@pytest.mark.parametrize(("term", "other"), [("aaa", "own"), ("zzz", "own")])
def test_no_option_of_a_loss_term_is_the_weight_of_another(term, other):
    with registries_restored():
        LOSS_TERMS.register(term, options=WeighsAnother)(lambda logits, target, states, teacher: logits.mean())
        LOSS_TERMS.register(other)(lambda logits, target, states, teacher: logits.mean())
        with pytest.raises(InputError, match=r"^loss term '\w+': .*own_weight.*; give .* another name$"):
            DistillConfig()
