"""The student's training objective: base loss + alpha DRO + lam ranking distillation + weighted loss terms."""

from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor, nn

from recdistill.config.base import WEIGHT
from recdistill.config.distill import DistillConfig
from recdistill.config.student import StudentConfig
from recdistill.distillation.exclusion import Excluded
from recdistill.distillation.fused import fused_loss
from recdistill.distillation.loss_terms import TermContext, build_term, checked_loss
from recdistill.distillation.propensity import propensity
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherAnswers, TeacherBatch
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS

#: What every objective computes.
LOSSES = ("total", "base", "dro", "ranking")


class Objective(nn.Module):
    """``total = base + alpha DRO + lam ranking + sum of weight x term``, added in this order.

    Its parameters, those of the loss terms, are trained with the student and not kept.

    Args:
        settings: of DLLM2Rec's losses.
        item_count: how often each item is a training target [V]; the robust term weighs items by it.
        terms: the loss terms in use, by name.
        weights: of each term.

    Raises:
        InputError: a term has a name that the objective uses itself, or the counts are not valid.
    """

    propensity: Tensor

    def __init__(
        self,
        settings: ObjectiveSettings,
        item_count: Tensor,
        terms: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        for name in terms or ():
            if name in LOSSES or hasattr(nn.ModuleDict, name):
                raise InputError(f"loss term {name}: the objective uses this name itself; give the term another")
        self.settings = settings
        self.weights = dict(weights or {})
        self.terms = nn.ModuleDict(dict(terms or {}))
        self.register_buffer("propensity", propensity(item_count).float(), persistent=False)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        states: Tensor,
        teacher: TeacherBatch | None = None,
        *,
        negative: Tensor | None = None,
        excluded: Excluded | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            logits: the student's [S, V].
            target: item ids [S].
            states: the student's states [S, D], read by loss terms only.
            teacher: the teacher's answers for these samples; may be None for the base loss alone.
            negative: one sampled item id a sample [S], for ``base_loss=bce``.
            excluded: items that do not compete in the softmax; see `exclusion`.

        Returns:
            Scalars: ``total``, and without gradient ``base``, ``dro``, ``ranking`` and each term by its name, before
            their weights.

        Raises:
            InputError: an input is missing, shapes do not fit, or a term returned something else than a finite scalar.
        """
        losses = fused_loss(
            self.settings, logits, target, teacher, negative=negative, propensity=self.propensity, excluded=excluded
        )
        for name, term in self.terms.items():
            loss = checked_loss(name, term(logits, target, states, teacher))
            losses["total"] = losses["total"] + self.weights[name] * loss
            losses[name] = loss.detach()
        return losses


def build_objective(
    config: StudentConfig, item_count: Tensor, *, state_size: int, teacher: TeacherAnswers | None
) -> Objective:
    """The objective of the options. Build it after the student: its parameters are drawn then.

    Args:
        config: options of ``distill``; those of a student without a teacher give the base loss alone.
        item_count: how often each item is a training target [V].
        state_size: D, of the student's states.
        teacher: the teacher's answers; None for the base loss alone.

    Raises:
        InputError: a loss term cannot be used with this teacher.
    """
    if teacher is None or not isinstance(config, DistillConfig):
        return Objective(ObjectiveSettings(base_loss=config.base_loss), item_count)
    settings = ObjectiveSettings(**{spec.name: getattr(config, spec.name) for spec in fields(ObjectiveSettings)})
    context = TermContext(len(item_count), state_size, teacher.state_size)
    weights = {name: config.value(name + WEIGHT) for name in LOSS_TERMS.names()}
    weights = {name: weight for name, weight in weights.items() if weight}
    terms = {}
    for name, weight in weights.items():
        try:
            terms[name] = build_term(name, config.of_part(LOSS_TERMS, name), context)
        except InputError as error:
            raise InputError(f"{name}{WEIGHT}={weight}: {error}") from None
    return Objective(settings, item_count, terms, weights)
