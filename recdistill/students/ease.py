"""EASE: a linear autoencoder of interactions in closed form (Steck, WWW 2019)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.interactions import cooccurrence, interaction_matrix, longest_history, multi_hot
from recdistill.students.recommender import ClosedForm

if TYPE_CHECKING:
    from recdistill.data.sequences import SequenceData

#: The largest catalogue: two matrices of its square in float64 are held at a time, 6.4 GB.
MOST_ITEMS = 20_000
ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class EASEOptions:
    """Own options of EASE."""

    ease_penalty: float = option(100.0, "L2 penalty of EASE", above=0)


@STUDENTS.register("ease", options=EASEOptions, gradient=False)
class EASE(ClosedForm):
    """Scores of a history's items x [V], 1 or 0: ``x B``, with B = argmin ``|X - X B|^2 + penalty |B|^2``, diag(B) = 0.

    In closed form (Steck 2019, equation 8): P = (X^T X + penalty I)^-1 and B = I - P diag(1 / diag(P)). The order of
    a history does not count; all of it is read.

    Raises:
        InputError: there are more than `MOST_ITEMS` items.
    """

    weight: Tensor

    def __init__(self, num_items: int, max_length: int, options: EASEOptions) -> None:
        super().__init__(num_items, max_length, options)
        self.register_buffer("weight", torch.zeros(num_items, num_items))

    @classmethod
    def check(cls, num_items: int, options: Any) -> None:
        """Raise InputError where the matrix of items by items is too large."""
        if num_items > MOST_ITEMS:
            raise InputError(
                f"student=ease: inverts a matrix of items by items and takes at most {MOST_ITEMS:,} items, this data "
                f"has {num_items:,}; choose another recommender, as itemknn"
            )

    @classmethod
    def fit(cls, data: "SequenceData", options: EASEOptions, seed: int) -> "EASE":
        """See `ClosedForm.fit`; draws no random number."""
        cls.check(data.num_items, options)
        matrix = interaction_matrix(data.train, data.num_items)
        gram = torch.empty(data.num_items, data.num_items, dtype=torch.float64)
        for begin in range(0, data.num_items, ROWS):
            end = min(begin + ROWS, data.num_items)
            gram[begin:end] = cooccurrence(matrix, begin, end)
        gram.diagonal().add_(options.ease_penalty)
        factor = torch.linalg.cholesky(gram)
        del gram
        inverse = torch.cholesky_inverse(factor)
        inverse.div_(-inverse.diagonal().clone()).fill_diagonal_(0)
        model = cls(data.num_items, longest_history(data), options)
        model.weight.copy_(inverse)
        return model

    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        """See `Recommender.scores`."""
        return multi_hot(history, length, self.num_items) @ self.weight
