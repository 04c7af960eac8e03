"""Columns of ids as numbers: each value's place among the distinct texts, so that a row needs no Python object."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recdistill.data.samples import Int64Array


@dataclass(frozen=True, eq=False)
class CodedColumn:
    """N texts.

    Attributes:
        codes: int32 [N], places in ``texts``: there are never more, for each is a Python object.
        texts: U distinct texts in the order in which they first appear.
    """

    codes: NDArray[np.int32]
    texts: pd.Index

    def __len__(self) -> int:
        return len(self.codes)

    def text(self, row: int) -> str:
        """The text of a row."""
        return str(self.texts[self.codes[row]])

    def rows_of(self, text: str) -> Int64Array:
        """The rows that hold a text, ascending."""
        place = self.texts.get_indexer(pd.Index([text]))[0]
        return np.flatnonzero(self.codes == place) if place >= 0 else np.zeros(0, dtype=np.int64)


def coded(column: "pd.Series[str]") -> CodedColumn:
    """A column of texts as numbers.

    >>> found = coded(pd.Series(["b", "a", "b"]))
    >>> found.codes.tolist(), list(found.texts)
    ([0, 1, 0], ['b', 'a'])
    """
    codes, texts = pd.factorize(column)
    return CodedColumn(codes.astype(np.int32), pd.Index(texts))


def coded_of_parts(parts: Iterable[tuple[NDArray[np.integer], list[str]]]) -> CodedColumn:
    """One column of parts, each with codes into texts of its own, which may hold a text twice.

    Texts are numbered by first appearance, where those of each part are in that order.

    >>> found = coded_of_parts([(np.array([0, 1]), ["b", "a"]), (np.array([1, 0, 0]), ["c", "a"])])
    >>> found.codes.tolist(), list(found.texts)
    ([0, 1, 1, 2, 2], ['b', 'a', 'c'])
    """
    place: dict[str, int] = {}
    codes: list[NDArray[np.int32]] = []
    for own, texts in parts:
        places = np.fromiter((place.setdefault(text, len(place)) for text in texts), np.int32, len(texts))
        codes.append(places[own])
    return CodedColumn(np.concatenate(codes, dtype=np.int32), pd.Index(list(place), dtype=str))
