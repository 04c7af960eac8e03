"""The loss term ``output``: output-level embedding distillation, the student's states learn the teacher's."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.config.option import option
from recdistill.distillation.loss_terms import TermContext
from recdistill.distillation.projection import projection_layer
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS

EMBEDDING_LOSSES = ("mse", "cosine")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Own options of the term."""

    output_loss: Literal["mse", "cosine"] = option("cosine", "distance of the sequence states")


@LOSS_TERMS.register(
    "output",
    options=OutputOptions,
    help="weight of the distance between student and teacher sequence states",
    needs_states=True,
    needs_logits=False,
    mean_of_samples=True,
)
class OutputTerm(nn.Module):
    """Distance of the student's projected states to the teacher's sequence embeddings.

    The mean over all samples, 0 for those that are not distilled, as the ranking distillation.

    Raises:
        InputError: the teacher kept no sequence embeddings.
    """

    def __init__(self, options: OutputOptions, context: TermContext) -> None:
        super().__init__()
        if context.teacher_state_size is None:
            raise InputError(
                "this teacher kept no sequence embeddings; make one with sequence_embeddings=true, or set "
                "output_weight=0"
            )
        self.kind = options.output_loss
        self.projection = projection_layer(context.state_size, context.teacher_state_size)

    def forward(self, logits: Tensor, target: Tensor, states: Tensor, teacher: TeacherBatch | None) -> Tensor:
        """The loss of states [S, D], a scalar. Raises InputError without the teacher's sequence embeddings."""
        if teacher is None or teacher.sequence_embedding is None:
            raise InputError("the loss term output needs the teacher's sequence embeddings; give its batch with them")
        chosen = teacher.distilled
        distance = output_embedding_distillation(
            self.projection(states[chosen]), teacher.sequence_embedding[chosen], self.kind
        )
        return chosen.float().mean() * distance


def output_embedding_distillation(student: Tensor, teacher: Tensor, kind: str = "mse") -> Tensor:
    """Distance of the student's sequence embeddings to the teacher's, a scalar: the mean over samples.

    Args:
        student: [S, D], projected to the teacher's size where the sizes differ.
        teacher: [S, D]; no gradient reaches it.
        kind: ``mse``, the mean of squared differences, or ``cosine``, one minus the cosine.

    Raises:
        InputError: unknown kind, or shapes that differ.
    """
    if kind not in EMBEDDING_LOSSES:
        raise InputError(f"unknown embedding loss {kind!r}; choose one of {', '.join(EMBEDDING_LOSSES)}")
    if student.shape != teacher.shape or student.ndim != 2:
        raise InputError(
            f"student embeddings {list(student.shape)} and teacher embeddings {list(teacher.shape)} do not "
            "fit; project one to the other, [S, D]"
        )
    teacher = teacher.detach().to(student)
    if len(student) == 0:
        return student.sum()
    if kind == "mse":
        return F.mse_loss(student, teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()
