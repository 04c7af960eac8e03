"""A teacher's vectors of items' texts, as the view ``teacher`` takes them; a teacher need not know of this room."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recdistill.errors import InputError
from recdistill.teachers.outputs import TeacherOutputs

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


class TextTeacher(Protocol):
    """What gives texts the vectors of a trained teacher."""

    def identity(self) -> Mapping[str, Any]:
        """The teacher, as JSON values: its run's key or a digest of its weights, the LLM, how it reads."""

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, E]. Raises InputError where a text is new and the teacher is not at hand."""


@dataclass(frozen=True, eq=False)
class TeacherTable:
    """A teacher's table of vectors with the texts that they were made of, as teacher outputs keep them.

    Attributes:
        texts: V of them. Where one stands twice, the first row counts.
        table: float32 [V, E].
        described: what the teacher is, as JSON values.
        encode: gives new texts their vectors, where the teacher itself is at hand.

    Raises:
        InputError: texts and table do not fit, or a number is not finite.
    """

    texts: Sequence[str]
    table: NDArray[np.float32]
    described: Mapping[str, Any] = field(default_factory=dict)
    encode: Encode | None = None

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or len(self.table) != len(self.texts):
            raise InputError(
                f"views=teacher: the teacher's table {list(self.table.shape)} is not of {len(self.texts)} texts; "
                "use outputs of a teacher of this data"
            )
        if not np.isfinite(self.table).all():
            raise InputError("views=teacher: the teacher's table holds NaN or infinity; make the outputs again")

    @classmethod
    def of_outputs(
        cls, outputs: TeacherOutputs, texts: Sequence[str], described: Mapping[str, Any], encode: Encode | None = None
    ) -> Self:
        """The table that teacher outputs keep of the items' texts. Raises InputError where they keep none."""
        if outputs.item_view is None:
            raise InputError(
                f"views=teacher: the outputs of this {outputs.manifest.teacher} teacher keep no vectors of items' "
                "texts; make a ranking teacher's, or choose views without it"
            )
        return cls(texts, outputs.item_view.float().numpy(), described, encode)

    def identity(self) -> Mapping[str, Any]:
        """What the teacher is."""
        return self.described

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, E]: rows of the table for its texts, the teacher's own for others.

        Raises InputError where there are others and no teacher to ask.
        """
        row = {text: place for place, text in reversed(list(enumerate(self.texts)))}
        found = np.zeros((len(texts), self.table.shape[1]), dtype=np.float32)
        new = [place for place, text in enumerate(texts) if text not in row]
        for place, text in enumerate(texts):
            if text in row:
                found[place] = self.table[row[text]]
        if new and self.encode is None:
            raise InputError(
                f"views=teacher: {len(new)} new texts, the first {texts[new[0]]!r}, and the teacher is not at hand; "
                "load it, or choose views without it"
            )
        if new and self.encode is not None:
            found[new] = self.encode([texts[place] for place in new])
        return found
