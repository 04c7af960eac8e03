"""Output-level embedding distillation: the student's sequence states learn the teacher's."""

from dataclasses import dataclass
from typing import Literal

from recdistill.config.option import option
from recdistill.registry import LOSS_TERMS


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Own options of the term."""

    output_loss: Literal["mse", "cosine"] = option("cosine", "distance of the sequence states")


@LOSS_TERMS.register(
    "output", options=OutputOptions, help="weight of the distance between student and teacher sequence states"
)
class OutputTerm:
    pass
