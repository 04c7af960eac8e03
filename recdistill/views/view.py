"""What a view of an item's text is: a class that gives texts vectors, and what it keeps of the trained items."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.text_teacher import TextTeacher

Float32Array = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Cost:
    """What vectors took when they were made; those that a cache gives back cost the same.

    Attributes:
        tokens: that a language model read, 0 of a view without one or one that does not tell.
        seconds: of making them, the model's loading left out.
    """

    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ViewContext:
    """What a view is made with, beside its own options.

    Attributes:
        device: for views that compute with a model.
        teacher: vectors that a teacher gives; only the view ``teacher`` reads it.
        cache: folder where vectors are kept; None for the user's cache.
    """

    device: torch.device = torch.device("cpu")
    teacher: TextTeacher | None = None
    cache: Path | None = None


class View(ABC):
    """A view of an item's text.

    Args:
        options: instance of the options dataclass that the class is registered with, or None.
        context: device and teacher.

    Raises:
        InputError: the options do not fit together.
    """

    #: Whether `fit` learns anything.
    learns = False

    def __init__(self, options: Any, context: ViewContext) -> None:
        self.options = options
        self.context = context

    def check(self) -> None:  # noqa: B027
        """Raise InputError where the options lack something, or name what is not there; quick, nothing is loaded."""

    def fit(self, texts: Sequence[str]) -> None:  # noqa: B027
        """Learn from the texts of the trained items, and of no others. Nothing by default."""

    @abstractmethod
    def vectors(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, D_view], finite; a text's vector depends on that text alone. Raises InputError."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What makes the vectors, as JSON values: the model and its revision, and how it is read.

        Two views of the same identity that learnt the same give the same vectors.
        """

    def terms(self) -> str:
        """The model's terms, one sentence, which whatever is made with it shares; '' where none are known."""
        return ""

    def cost(self, texts: Sequence[str]) -> Cost:
        """What the vectors of these texts took; nothing by default."""
        return Cost()

    def release(self) -> None:  # noqa: B027
        """Free the memory of what `vectors` loads; it is loaded again where it is needed."""

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """What `fit` learnt: JSON values and arrays. Nothing by default."""
        return {}, {}

    def restore(self, identity: Mapping[str, Any], values: Mapping[str, Any], arrays: Arrays) -> None:
        """Take what `identity` and `state` gave. Raises InputError where the model at hand is another one."""
        found = self.identity()
        if found != identity:
            differing = sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
            name = VIEWS.name_of(type(self))
            raise InputError(
                f"views={name}: the vectors were made with other {', '.join(differing)} than those at hand; "
                "use the same model, or make them again"
            )


def unit_length(vectors: Float32Array) -> Float32Array:
    """Rows divided by their length; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
