"""The student's training objective: base loss + alpha DRO + lam ranking distillation + weighted loss terms."""

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor, nn

from recdistill.config.base import WEIGHT
from recdistill.config.distill import DistillConfig
from recdistill.config.student import StudentConfig
from recdistill.distillation.blockwise import blockwise_loss
from recdistill.distillation.exclusion import Pairs
from recdistill.distillation.fused import fused_loss
from recdistill.distillation.loss_terms import TermContext, build_term, checked_loss
from recdistill.distillation.negatives import Negatives
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.propensity import propensity
from recdistill.distillation.sampled import sampled_loss
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherAnswers, TeacherBatch
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS, TAKEN_BY_LOSSES

#: What every objective computes.
LOSSES = TAKEN_BY_LOSSES


class Objective(nn.Module):
    """``total = base + alpha DRO + lam ranking + sum of weight x term``, added in this order.

    Its parameters, those of the loss terms, are trained with the student and not kept.

    Args:
        settings: of DLLM2Rec's losses.
        item_count: how often each item is a training target [V]; the robust term weighs items by it.
        learnt: bool [V], the items that a student learns from its samples; None for those with a count.
        terms: the loss terms in use, by name.
        weights: of each term.
        mask_untrained: whether items that are not learnt do not compete.
        terms_read_logits: whether a term reads the logits; where none does, `of_states` needs none.

    Raises:
        InputError: a term has a name that the objective uses itself, or the counts are not valid.
    """

    propensity: Tensor
    untrained: Tensor | None

    def __init__(
        self,
        settings: ObjectiveSettings,
        item_count: Tensor,
        terms: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        *,
        mask_untrained: bool = False,
        terms_read_logits: bool = True,
        learnt: Tensor | None = None,
    ) -> None:
        super().__init__()
        for name in terms or ():
            if name in LOSSES or hasattr(nn.ModuleDict(), name):
                raise InputError(f"loss term {name}: the objective uses this name itself; give the term another")
        self.settings = settings
        self.weights = dict(weights or {})
        self.terms = nn.ModuleDict(dict(terms or {}))
        self.needs_logits = settings.mixes_samples or (bool(terms) and terms_read_logits)
        self.register_buffer("propensity", propensity(item_count).float(), persistent=False)
        untrained = torch.nonzero(item_count == 0 if learnt is None else ~learnt).squeeze(1)
        columns = untrained if mask_untrained and len(untrained) else None
        self.register_buffer("untrained", columns, persistent=False)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        states: Tensor,
        teacher: TeacherBatch | None = None,
        *,
        negative: Tensor | None = None,
        excluded: Pairs | None = None,
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
            self.settings,
            logits,
            target,
            teacher,
            negative=negative,
            propensity=self.propensity,
            excluded=excluded,
            columns=self.untrained,
        )
        return self._with_terms(losses, logits, target, states, teacher)

    def of_states(
        self,
        states: Tensor,
        output: OutputLayer,
        target: Tensor,
        teacher: TeacherBatch | None = None,
        *,
        negative: Tensor | None = None,
        excluded: Pairs | None = None,
        negatives: Negatives | None = None,
    ) -> dict[str, Tensor]:
        """The same losses from the student's states [S, D] and the layer that scores items.

        The logits of all samples are never held, see `blockwise`, unless ``needs_logits``: a loss reads them. A base
        loss of `settings.SAMPLED` needs drawn ``negatives``, see `sampled`, and has this way alone.
        """
        if self.settings.samples_negatives:
            if negatives is None or self.needs_logits:
                raise InputError(f"base loss {self.settings.base_loss!r} needs drawn negatives, and no logits")
            losses = sampled_loss(
                self.settings,
                states,
                output,
                target,
                teacher,
                negatives=negatives,
                propensity=self.propensity,
                excluded=excluded,
                columns=self.untrained,
            )
            return self._with_terms(losses, states.new_empty(len(states), 0), target, states, teacher)
        if self.needs_logits:
            return self(output.logits(states), target, states, teacher, negative=negative, excluded=excluded)
        losses = blockwise_loss(
            self.settings,
            states,
            output,
            target,
            teacher,
            negative=negative,
            propensity=self.propensity,
            excluded=excluded,
            columns=self.untrained,
        )
        return self._with_terms(losses, states.new_empty(len(states), 0), target, states, teacher)

    def _with_terms(
        self, losses: dict[str, Tensor], logits: Tensor, target: Tensor, states: Tensor, teacher: TeacherBatch | None
    ) -> dict[str, Tensor]:
        for name, term in self.terms.items():
            with LOSS_TERMS.calling(name):
                value = term(logits, target, states, teacher)
            loss = checked_loss(name, value)
            losses["total"] = losses["total"] + self.weights[name] * loss
            losses[name] = loss.detach()
        return losses


def settings_of(config: DistillConfig) -> ObjectiveSettings:
    """The objective's settings of the options. Raises InputError where they do not go together."""
    return ObjectiveSettings(**{spec.name: getattr(config, spec.name) for spec in fields(ObjectiveSettings)})


def build_objective(
    config: StudentConfig,
    item_count: Tensor,
    *,
    state_size: int,
    teacher: TeacherAnswers | None,
    learnt: Tensor | None = None,
) -> Objective:
    """The objective of the options. Build it after the student: its parameters are drawn then.

    Args:
        config: options of ``distill``; those of a student without a teacher give the base loss alone.
        item_count: how often each item is a training target [V].
        state_size: D, of the student's states.
        teacher: the teacher's answers; None for the base loss alone.
        learnt: bool [V], the items that are targets of samples that are learnt from; None for those with a count.

    Raises:
        InputError: a loss term cannot be used with this teacher.
    """
    if teacher is None or not isinstance(config, DistillConfig):
        plain = ObjectiveSettings(
            base_loss=config.base_loss, gbce_calibration=config.gbce_calibration, bf16=config.bf16
        )
        return Objective(plain, item_count, mask_untrained=config.mask_untrained, learnt=learnt)
    settings = settings_of(config)
    context = TermContext(len(item_count), state_size, teacher.state_size)
    weights = {name: config.value(name + WEIGHT) for name in LOSS_TERMS.names()}
    weights = {name: weight for name, weight in weights.items() if weight}
    terms = {}
    for name, weight in weights.items():
        try:
            with LOSS_TERMS.calling(name):
                terms[name] = build_term(name, config.of_part(LOSS_TERMS, name), context)
        except InputError as error:
            raise InputError(f"{name}{WEIGHT}={weight}: {error}") from None
    return Objective(
        settings,
        item_count,
        terms,
        weights,
        mask_untrained=config.mask_untrained,
        learnt=learnt,
        terms_read_logits=any(LOSS_TERMS.declaration(name).about.get("needs_logits", True) for name in terms),
    )
