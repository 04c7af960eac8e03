"""The numbers and choices of the objective, checked once."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from recdistill.errors import InputError

BaseLoss = Literal["ce", "bce", "sampled", "gbce"]
#: Base losses over many drawn items as negatives, that all samples of a batch share or of each sample's own (``gbce``).
SAMPLED = ("sampled", "gbce")
RankingLoss = Literal["base", "bce", "ce", "kl"]
#: Names of ranking losses that were others before.
RENAMED = {"ranking": "base"}


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
        base_weight: of the base loss and the robust term of the target, at least 0; 0 leaves distillation alone.
        ranking_loss: of the candidates, importance-aware: ``base``, the base loss of each; ``ce`` or ``bce``, whatever
            the base loss is; or ``kl``, listwise. ``ranking`` is another name of ``base``.
        release_compat: keep two defects of the released code; see `losses.ranking_distillation`.
        gbce_calibration: t of ``gbce``, in [0, 1]: 0 is plain binary cross-entropy, 1 fully calibrated.
        bf16: products of `blockwise`, of states with the items' rows and of their gradients, are made of bfloat16
            numbers; what is made of their results is in float32.

    Raises:
        InputError: a number or choice is not allowed.
    """

    base_loss: BaseLoss = "ce"
    base_weight: float = 1.0
    lam: float = 0.0
    alpha: float = 0.0
    beta: float = 1.0
    gamma_position: float = 0.3
    gamma_confidence: float = 0.5
    gamma_consistency: float = 0.1
    temperature: float = 1.0
    ranking_loss: RankingLoss = "base"
    release_compat: bool = False
    gbce_calibration: float = 0.75
    bf16: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranking_loss", RENAMED.get(self.ranking_loss, self.ranking_loss))
        for kind, value, choices in (
            ("base loss", self.base_loss, get_args(BaseLoss)),
            ("ranking loss", self.ranking_loss, get_args(RankingLoss)),
        ):
            if value not in choices:
                raise InputError(f"unknown {kind} {value!r}; choose one of {', '.join(choices)}")
        if self.lam and self.samples_negatives and self.ranking_loss in ("bce", "ce"):
            raise InputError(
                f"ranking_loss={self.ranking_loss}: reads other items than base_loss={self.base_loss} draws; give base "
                "or kl, or base_loss=ce"
            )
        for name in ("alpha", "lam", "base_weight"):
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
        return self.release_compat and bool(self.alpha) and bool(self.lam) and self.weighs_candidates

    @property
    def weighs_candidates(self) -> bool:
        """Whether the candidates have importance weights and losses of their own; else they are one list."""
        return self.ranking_loss != "kl"

    @property
    def candidate_loss(self) -> BaseLoss:
        """The loss of a candidate, where candidates have losses of their own."""
        return self.ranking_loss if self.ranking_loss in ("bce", "ce") else self.base_loss  # type: ignore[return-value]

    @property
    def losses_in_use(self) -> tuple[BaseLoss, ...]:
        """The loss of the target, and of the candidates where these have losses of their own."""
        return (self.base_loss, self.candidate_loss) if self.lam and self.weighs_candidates else (self.base_loss,)

    @property
    def finds_best(self) -> bool:
        """Whether the student's own top K is searched for, which weighs candidates by consistency."""
        return bool(self.lam) and self.weighs_candidates and bool(self.gamma_consistency)

    @property
    def masks_seen(self) -> bool:
        """Whether something reads which items compete, so that those of a history can be left out of it.

        Where the release's defects are kept, its top K of all items is, too, unless a loss has items compete.
        """
        return self.needs_softmax or self.samples_negatives or (self.finds_best and not self.release_compat)

    @property
    def needs_softmax(self) -> bool:
        """Whether a loss is a softmax over all items."""
        return "ce" in self.losses_in_use

    @property
    def negative_options(self) -> tuple[str, ...]:
        """The options whose loss needs a sampled item a sample; none where no loss does."""
        given = {"base_loss": self.base_loss == "bce", "ranking_loss": self.ranking_loss == "bce" and bool(self.lam)}
        return tuple(name for name, needs in given.items() if needs)

    @property
    def needs_negative(self) -> bool:
        """Whether a loss needs a sampled item a sample."""
        return bool(self.negative_options)

    @property
    def samples_negatives(self) -> bool:
        """Whether the base loss is over many drawn negatives."""
        return self.base_loss in SAMPLED
