"""Loss terms that a user may add to the objective: what they are built from, and how they are called.

A term is a file in ``distillation/terms/``, or in a user's ``plugin``, that registers a function or a module class::

    @LOSS_TERMS.register("entropy", help="weight of the student's negative entropy")
    def entropy(logits: Tensor, target: Tensor, states: Tensor, teacher: TeacherBatch) -> Tensor:
        log_probs = torch.log_softmax(logits, dim=1)
        return (log_probs.exp() * log_probs).sum(dim=1).mean()

The option ``entropy_weight`` then exists; the term is in use where it is not 0. A term that is registered with
``needs_logits=False`` reads none, and may be given logits [S, 0]: a training then never holds those of a whole batch.
One that is registered with ``mean_of_samples=True`` is the mean over the S samples of a number that depends on the
sample alone; several processes may then divide a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS

#: ``(logits [S, V], target [S], states [S, D], teacher) -> scalar``.
LossTerm = Callable[[Tensor, Tensor, Tensor, TeacherBatch | None], Tensor]


@dataclass(frozen=True)
class TermContext:
    """The sizes that a loss term with parameters is built for.

    Attributes:
        num_items: V.
        state_size: D, of the student's states.
        teacher_state_size: F, of the teacher's sequence embeddings; None where the teacher kept none.
    """

    num_items: int
    state_size: int
    teacher_state_size: int | None


class FunctionTerm(nn.Module):
    """A loss term that is a function, as a module without parameters."""

    def __init__(self, function: LossTerm) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, target: Tensor, states: Tensor, teacher: TeacherBatch | None) -> Tensor:
        """The function's loss."""
        return self.function(logits, target, states, teacher)


def build_term(term: str | type[nn.Module] | LossTerm, options: Any, context: TermContext) -> nn.Module:
    """A loss term, ready to be called.

    Args:
        term: the name of a registered term, or the class or function itself.
        options: instance of the term's options dataclass; None for its defaults, or where it has none.
        context: sizes of student and teacher.

    Raises:
        InputError: the name is unknown, the term is neither function nor module, or cannot be built for these sizes.
    """
    part = LOSS_TERMS.get(term) if isinstance(term, str) else term
    kind = _options_of(part)
    if isinstance(part, type):
        built = part(kind() if options is None and kind is not None else options, context)
        if not isinstance(built, nn.Module):
            raise InputError(f"loss term {part.__name__}: is a class, but no torch.nn.Module; derive it from that")
        return built
    if kind is not None:
        raise InputError(f"loss term {part.__name__}: has options, but is a function; make it a torch.nn.Module class")
    return FunctionTerm(part)


def _options_of(part: Any) -> type | None:
    """The options dataclass that a term is registered with; None where there is none."""
    try:
        return LOSS_TERMS.options(LOSS_TERMS.name_of(part))
    except KeyError:
        return None


def checked_loss(name: str, value: Any) -> Tensor:
    """The loss that a term returned. Raises InputError unless it is one finite number."""
    if not isinstance(value, Tensor) or value.ndim:
        found = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"loss term {name}: returned {found}; return a scalar tensor, such as a mean over samples")
    if not bool(torch.isfinite(value)):
        raise InputError(
            f"loss term {name}: is {value.item()}; make it finite for all finite logits, "
            f"see recdistill.testing.loss_terms.check_loss_term, or set {name}_weight=0"
        )
    return value
