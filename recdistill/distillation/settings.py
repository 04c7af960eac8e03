"""The numbers and choices of the objective, checked once."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from recdistill.errors import InputError

BaseLoss = Literal["ce", "bce", "sampled", "gbce"]
#: Base losses over items that all samples of a batch share as negatives.
SAMPLED = ("sampled", "gbce")
RankingLoss = Literal["ranking", "kl"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What `losses.plain_loss` and `fused.fused_loss` compute; the defaults are the base loss alone.

    Attributes:
        base_loss: ``ce``, cross-entropy over all items; ``bce``, over the target and one sampled negative; or one of
            `SAMPLED`, see `sampled`.
        lam: weight of the ranking distillation, at least 0.
        alpha: weight of the robust term (DRO) of the target and of each candidate, at least 0.
        beta: temperature of the robust term, above 0.
        gamma_position, gamma_confidence, gamma_consistency: shares of a candidate's importance, at least 0 and not
            all 0 where they are used.
        temperature: of the teacher's confidence, and of both distributions of ``kl``; above 0.
        ranking_loss: ``ranking``, importance-aware ranking distillation; or ``kl``, listwise over the candidates.
        release_compat: keep two defects of the released code; see `losses.ranking_distillation`.
        gbce_calibration: t of ``gbce``, in [0, 1]: 0 is plain binary cross-entropy, 1 fully calibrated.

    Raises:
        InputError: a number or choice is not allowed.
    """

    base_loss: BaseLoss = "ce"
    lam: float = 0.0
    alpha: float = 0.0
    beta: float = 1.0
    gamma_position: float = 0.3
    gamma_confidence: float = 0.5
    gamma_consistency: float = 0.1
    temperature: float = 1.0
    ranking_loss: RankingLoss = "ranking"
    release_compat: bool = False
    gbce_calibration: float = 0.75

    def __post_init__(self) -> None:
        for kind, value, choices in (
            ("base loss", self.base_loss, get_args(BaseLoss)),
            ("ranking loss", self.ranking_loss, get_args(RankingLoss)),
        ):
            if value not in choices:
                raise InputError(f"unknown {kind} {value!r}; choose one of {', '.join(choices)}")
        for name in ("alpha", "lam"):
            value = getattr(self, name)
            if not value >= 0 or not math.isfinite(value):
                raise InputError(f"{name} is {value}; give a number of at least 0")
        for name in ("beta", "temperature"):
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise InputError(f"{name} is {value}; give a number above 0")
        if not 0 <= self.gbce_calibration <= 1:
            raise InputError(f"gbce_calibration is {self.gbce_calibration}; give a number from 0 to 1")
        gammas = (self.gamma_position, self.gamma_confidence, self.gamma_consistency)
        unused = not self.lam or self.ranking_loss == "kl"
        if not all(gamma >= 0 and math.isfinite(gamma) for gamma in gammas) or (sum(gammas) == 0 and not unused):
            raise InputError(f"gammas of position, confidence and consistency are {gammas}; give at least 0, not all 0")

    @property
    def mixes_samples(self) -> bool:
        """Whether a sample's loss depends on the others of its batch: the second of the release's defects."""
        return self.release_compat and bool(self.alpha) and bool(self.lam) and self.ranking_loss == "ranking"

    @property
    def samples_negatives(self) -> bool:
        """Whether the base loss is over shared negatives."""
        return self.base_loss in SAMPLED
