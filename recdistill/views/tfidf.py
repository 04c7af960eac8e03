"""The view ``tfidf``: words and pieces of words, weighted by how rare they are, in the directions of the trained items.

Counts are dampened (1 + ln count) and weighted by the inverse document frequency ln((1 + n) / (1 + df)) + 1, words and
characters each to unit length (Salton and Buckley 1988), and projected on their first singular directions over the
trained items' texts (latent semantic analysis, Deerwester et al. 1990).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.view import Arrays, Float32Array, View, ViewContext

WORD = r"(?u)\b\w+\b"
SHORTEST = 3  # characters of a piece
MOST_TERMS = 30_000  # of words and of characters each, the most frequent
LEAST = 1e-5  # share of the greatest singular value below which a direction is rounding
EXACT = 3000  # texts, or terms, up to which the decomposition is of a dense Gram matrix


@dataclass(frozen=True, kw_only=True)
class TfidfOptions:
    """Options of the view."""

    tfidf_words: int = option(2, "most words of a term; 0: no words", least=0, most=3)
    tfidf_characters: int = option(4, "most characters of a piece of a word, at least 3; 0: no pieces", least=0, most=8)
    tfidf_size: int = option(256, "size of the vectors, at most", least=1, most=2000)


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of one kind that the trained items' texts have.

    Attributes:
        analyzer: ``word`` or ``char_wb`` of scikit-learn.
        lengths: least and most words, or characters, of a term.
        names: T of them, in alphabetical order.
        idf: float64 [T].
    """

    analyzer: str
    lengths: tuple[int, int]
    names: tuple[str, ...]
    idf: NDArray[np.float64] = field(repr=False)

    def weights(self, texts: Sequence[str]) -> csr_matrix:
        """Rows of unit length [n, T], of zeros where a text has none of the terms."""
        counts = _counter(self.analyzer, self.lengths, vocabulary=self.names).transform(list(texts)).astype(np.float64)
        counts.data = 1 + np.log(counts.data)
        return normalize(csr_matrix(counts.multiply(self.idf)))


def learn_terms(texts: Sequence[str], analyzer: str, lengths: tuple[int, int]) -> Terms | None:
    """The terms of the texts, at most 30,000, with their weights; None where the texts have none."""
    counter = _counter(analyzer, lengths, max_features=MOST_TERMS)
    try:
        counts = counter.fit_transform(list(texts))
    except ValueError:  # scikit-learn's word for texts without a term
        return None
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
    return Terms(analyzer, lengths, tuple(map(str, counter.get_feature_names_out())), idf)


def _counter(analyzer: str, lengths: tuple[int, int], **more: Any) -> CountVectorizer:
    """What splits texts and counts; accents and case do not count."""
    pattern = WORD if analyzer == "word" else None
    return CountVectorizer(
        analyzer=analyzer, ngram_range=lengths, lowercase=True, strip_accents="unicode", token_pattern=pattern, **more
    )


@VIEWS.register("tfidf", options=TfidfOptions)
class TfidfView(View):
    """Words and pieces of words of the trained items' texts; it needs no model and takes a second."""

    learns = True
    options: TfidfOptions

    def __init__(self, options: TfidfOptions, context: ViewContext) -> None:
        super().__init__(options, context)
        words, characters = options.tfidf_words, options.tfidf_characters
        self.kinds = {"word": (1, words)} if words else {}
        if characters:
            if characters < SHORTEST:
                raise InputError(f"tfidf_characters={characters}: must be 0 or at least {SHORTEST}")
            self.kinds["char_wb"] = (SHORTEST, characters)
        if not self.kinds:
            raise InputError("tfidf_words=0: tfidf_characters is 0, too; give one of them")
        self.learnt: list[Terms] = []
        self.directions: Float32Array = np.zeros((0, 0), dtype=np.float32)

    def fit(self, texts: Sequence[str]) -> None:
        """Learn terms, their weights and the main directions from the trained items' texts.

        Raises InputError where the texts have neither words nor letters.
        """
        learnt = [learn_terms(texts, analyzer, lengths) for analyzer, lengths in self.kinds.items()]
        self.learnt = [one for one in learnt if one is not None]
        if not self.learnt:
            raise InputError("views=tfidf: no trained item's text has a word; choose other views or another item_text")
        self.directions = main_directions(self._weights(texts), self.options.tfidf_size)

    def vectors(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, D_view]; zeros for a text that shares no term with a trained item's."""
        if not self.learnt:
            raise InputError("views=tfidf: has learnt nothing yet; call fit, or load one that was saved")
        if not texts:
            return np.zeros((0, self.directions.shape[1]), dtype=np.float32)
        return np.asarray(self._weights(texts) @ self.directions, dtype=np.float32)

    def identity(self) -> dict[str, Any]:
        """The kinds of terms; the terms themselves are learnt."""
        return {"kinds": {name: list(lengths) for name, lengths in self.kinds.items()}, "size": self.options.tfidf_size}

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """Terms as JSON; their weights and the directions as arrays."""
        arrays: Arrays = {f"idf_{one.analyzer}": one.idf for one in self.learnt}
        return {one.analyzer: list(one.names) for one in self.learnt}, arrays | {"directions": self.directions}

    def restore(self, identity: Mapping[str, Any], values: Mapping[str, Any], arrays: Arrays) -> None:
        """Take the terms and directions that were learnt."""
        super().restore(identity, values, arrays)
        self.learnt = [
            Terms(analyzer, lengths, tuple(values[analyzer]), arrays[f"idf_{analyzer}"])
            for analyzer, lengths in self.kinds.items()
            if analyzer in values
        ]
        self.directions = arrays["directions"]

    def _weights(self, texts: Sequence[str]) -> csr_matrix:
        """Rows [n, T] of all kinds side by side."""
        return csr_matrix(scipy.sparse.hstack([one.weights(texts) for one in self.learnt]))


def main_directions(weights: csr_matrix, most: int) -> Float32Array:
    """The first right singular vectors of a sparse matrix [n, T] as columns [T, D], D at most ``most``.

    The component of greatest size is positive, so that the same texts give the same directions.
    """
    least = min(weights.shape)
    if least <= EXACT or most >= least:
        size, right = _by_gram(weights, min(most, least))
    else:
        # The start is fixed: ARPACK's own is drawn.
        _, size, right = svds(weights, k=most, v0=np.ones(least) / np.sqrt(least), solver="arpack")
        size, right = size[::-1], right[::-1]
    right = right[size > LEAST * max(float(size.max()), np.finfo(np.float64).tiny)]
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    return np.ascontiguousarray((right * sign[:, None]).T, dtype=np.float32)


def _by_gram(weights: csr_matrix, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first singular values, falling, and right singular vectors [D, T], by the smaller Gram matrix."""
    wide = weights.shape[1] > weights.shape[0]
    gram = (weights @ weights.T if wide else weights.T @ weights).toarray()
    value, vector = scipy.linalg.eigh(gram, subset_by_index=[len(gram) - most, len(gram) - 1])
    size = np.sqrt(np.maximum(value[::-1], 0))
    vector = vector[:, ::-1]
    if not wide:
        return size, vector.T
    return size, np.asarray(weights.T @ (vector / np.maximum(size, np.finfo(np.float64).tiny))).T
