"""A view by a model that learns nothing here: each text is read once and kept in the user's cache."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.vector_cache import Encoded, Kept, VectorCache, text_digest
from recdistill.views.view import Cost, Float32Array, View

#: A kill loses at most the texts that were read in this time.
KEEP_SECONDS = 20.0


class FrozenView(View):
    """A view whose model is given; a subclass has `encode` and `identity`.

    Texts are read by length, so that a batch has little padding, each text once, however often it stands there.
    """

    #: Texts of a batch, at most.
    batch_texts = 64
    #: Characters of a batch, those of its longest text times their number, at most.
    batch_characters = 8192

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> tuple[Float32Array, NDArray[np.int64]]:
        """Vectors float32 [n, D] and tokens read [n] of one batch. Raises InputError."""

    def read_elsewhere(self, texts: Sequence[str]) -> Encoded | None:
        """Vectors of all these texts, where something else has read just these in the same way; None here."""
        return None

    def cache_identity(self) -> dict[str, Any]:
        """What kept vectors are found by: the identity, and what else changes a number, as the precision does."""
        return self.identity()

    def vectors(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, D_view], from the cache where the texts have been read before."""
        kept = self._kept(texts or [""])
        found = [kept[text_digest(text)].vector for text in texts or [""]]
        return np.stack(found)[: len(texts)].astype(np.float32)

    def cost(self, texts: Sequence[str]) -> Cost:
        """Tokens and seconds of reading these texts, each once, whenever that was."""
        kept = VectorCache(self.cache_identity(), self.context.cache).read(map(text_digest, texts)).values()
        return Cost(sum(one.tokens for one in kept), sum(one.seconds for one in kept))

    def batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """The texts by length, longest first: where memory does not suffice, that shows at once."""
        batch: list[str] = []
        for text in sorted(texts, key=lambda one: (-len(one), one)):
            longest = len(batch[0]) if batch else len(text)
            if batch and (len(batch) == self.batch_texts or (len(batch) + 1) * longest > self.batch_characters):
                yield batch
                batch = []
            batch.append(text)
        if batch:
            yield batch

    def _kept(self, texts: Sequence[str]) -> dict[bytes, Kept]:
        """The texts' vectors by digest; those that no cache holds are made and kept."""
        cache = VectorCache(self.cache_identity(), self.context.cache)
        kept = cache.read(map(text_digest, texts))
        missing = sorted({text for text in texts if text_digest(text) not in kept})
        name = VIEWS.name_of(type(self))
        waiting: list[tuple[list[str], Encoded]] = []

        def found(batch: list[str], encoded: Encoded) -> None:
            waiting.append((batch, encoded))
            for row, text in enumerate(batch):
                kept[text_digest(text)] = Kept(encoded.vectors[row], int(encoded.tokens[row]), 0.0)

        if missing and (known := self.read_elsewhere(texts)) is not None:
            place = {text: row for row, text in enumerate(texts)}
            rows = [place[text] for text in missing]
            found(missing, Encoded(known.vectors[rows], known.tokens[rows], known.seconds[rows]))
            missing = []
        begin = time.monotonic()
        with tqdm(total=len(missing), desc=f"view {name}", unit="text", leave=False, disable=len(missing) < 2) as bar:
            for batch in self.batches(missing):
                found(batch, self._timed(batch, name))
                if time.monotonic() - begin > KEEP_SECONDS:
                    _keep(cache, waiting)
                    waiting.clear()
                    begin = time.monotonic()
                bar.update(len(batch))
        _keep(cache, waiting)
        return kept

    def _timed(self, batch: list[str], name: str) -> Encoded:
        """A batch with its time. Raises InputError where the model gives what is no vector a text."""
        begin = time.perf_counter()
        vectors, tokens = self.encode(batch)
        seconds = (time.perf_counter() - begin) / len(batch)
        if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
            raise InputError(f"views={name}: the model gives NaN, infinity or too few vectors; choose another model")
        return Encoded(vectors, tokens.astype(np.int64), np.full(len(batch), seconds, dtype=np.float32))


def _keep(cache: VectorCache, waiting: Sequence[tuple[list[str], Encoded]]) -> None:
    """Write what has been read since the last time."""
    if waiting:
        encoded = [one for _, one in waiting]
        cache.add(
            [text for texts, _ in waiting for text in texts],
            Encoded(
                np.concatenate([one.vectors for one in encoded]),
                np.concatenate([one.tokens for one in encoded]),
                np.concatenate([one.seconds for one in encoded]),
            ),
        )
