import math

import pytest

from recdistill.distillation.settings import ObjectiveSettings
from recdistill.errors import InputError


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_loss": "mse"}, "unknown base loss 'mse'; choose one of ce, bce"),
        ({"ranking_loss": "listwise"}, "unknown ranking loss 'listwise'; choose one of base, bce, ce, kl"),
        ({"alpha": -1.0}, "alpha is -1.0; give a number of at least 0"),
        ({"lam": math.nan}, "lam is nan"),
        ({"lam": math.inf}, "lam is inf"),
        ({"beta": 0.0}, "beta is 0.0; give a number above 0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"gamma_position": -1.0}, "gammas of position, confidence and consistency"),
        ({"gamma_confidence": math.nan}, "gammas"),
    ],
)
def test_what_is_out_of_range_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        ObjectiveSettings(**changed)


def test_gammas_that_are_all_0_are_refused_where_they_are_used():
    nothing = {"gamma_position": 0.0, "gamma_confidence": 0.0, "gamma_consistency": 0.0}
    with pytest.raises(InputError, match="not all 0"):
        ObjectiveSettings(lam=0.5, **nothing)
    assert ObjectiveSettings(lam=0.5, ranking_loss="kl", **nothing).lam == 0.5
    assert ObjectiveSettings(**nothing).lam == 0


@pytest.mark.parametrize(
    ("changed", "masked"),
    [
        ({"lam": 0.5}, True),
        ({"lam": 0.5, "ranking_loss": "bce"}, True),
        ({"lam": 0.5, "release_compat": True}, False),
        ({"lam": 0.5, "gamma_consistency": 0.0}, False),
        ({"lam": 0.5, "ranking_loss": "kl"}, False),
        ({"lam": 0.5, "ranking_loss": "ce"}, True),
        ({}, False),
    ],
)
def test_under_bce_a_top_k_alone_reads_what_competes(changed, masked):
    assert ObjectiveSettings(base_loss="bce", **changed).masks_seen == masked


def test_who_asks_for_a_negative_is_named():
    both = ObjectiveSettings(base_loss="bce", ranking_loss="bce", lam=1.0)
    assert both.negative_options == ("base_loss", "ranking_loss")
    assert ObjectiveSettings(ranking_loss="bce", lam=1.0).negative_options == ("ranking_loss",)
    assert not ObjectiveSettings(ranking_loss="bce").needs_negative
