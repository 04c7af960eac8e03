"""Vectors of items' texts that a student's item embeddings start from (``item_init=views``)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recdistill.errors import InputError


@dataclass(frozen=True, eq=False)
class TextVectors:
    """What is known of V items by their texts.

    Attributes:
        vectors: float32 [V, K], standardised and narrow; not trained.
        trained: bool [V], whether an item is learnt, as a training target. The others have no embedding of their own.

    Raises:
        InputError: the sizes do not fit, or a number is not finite.
    """

    vectors: Tensor
    trained: Tensor

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.trained.shape != self.vectors.shape[:1] or not self.vectors.shape[1]:
            raise InputError(
                f"item_init=views: vectors {list(self.vectors.shape)} are not of {len(self.trained)} items; give each "
                "item a vector"
            )
        if not bool(torch.isfinite(self.vectors).all()):
            raise InputError("item_init=views: a vector of an item's text holds NaN or infinity; make them again")

    def check(self, num_items: int) -> None:
        """Raise InputError unless they are of so many items."""
        if len(self.vectors) != num_items:
            raise InputError(f"item_init=views: vectors of {len(self.vectors)} items, the student has {num_items}")
