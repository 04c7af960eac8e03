"""What every recommender is: scores of all items for a history of items."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

if TYPE_CHECKING:
    from recdistill.data.sequences import SequenceData


class Recommender(nn.Module, ABC):
    """A recommender of V items. What it learnt are its parameters and persistent buffers, and nothing else.

    Args:
        num_items: V. Items are 0 .. V-1, and V is the padding id.
        max_length: the most history items it reads.
    """

    def __init__(self, num_items: int, max_length: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.max_length = max_length

    @abstractmethod
    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        """Scores [B, V] of all items as the next one of each history, the higher the better.

        Args:
            history: item ids int64 [B, L], oldest first, right-padded; what stands at the padding does not count.
            length: items in each history [B], from 1 to L.
        """

    @classmethod
    def check(cls, num_items: int, options: Any) -> None:
        """Raise InputError where the recommender cannot be built for so many items with its own ``options``."""


class ClosedForm(Recommender):
    """A recommender that is computed from the training interactions, without gradients.

    It is registered with ``gradient=False``, and constructed not yet fitted: with zeros in buffers of their final
    shapes, which `fit` or a saved recommender fills.

    Args:
        num_items: V.
        max_length: the most history items it reads.
        options: instance of the dataclass of its own options, or None where it has none.
    """

    def __init__(self, num_items: int, max_length: int, options: Any) -> None:
        super().__init__(num_items, max_length)

    @classmethod
    @abstractmethod
    def fit(cls, data: "SequenceData", options: Any, seed: int) -> Self:
        """The recommender of ``data.train``; see `students.interactions` for the interactions in it.

        Args:
            data: validation and test samples are not looked at, but for the length of the histories.
            options: as in the constructor.
            seed: of every random number that it draws.

        Raises:
            InputError: the data does not suit it.
        """
