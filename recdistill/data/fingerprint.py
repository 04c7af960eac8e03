"""The SHA-256 of a split data set, by which a run tells whether it fits the data at hand."""

import hashlib
from collections.abc import Iterable

import numpy as np

from recdistill.data.samples import Samples


def fingerprint(item_ids: Iterable[str], titles: Iterable[str], parts: Iterable[Samples]) -> str:
    """Hex SHA-256 over the catalogue and, for each part in order, its flat items, starts and ends.

    Equal content gives an equal hash on every platform and in every version of Python.
    """
    digest = hashlib.sha256(b"recdistill data 1")
    for texts in (tuple(item_ids), tuple(titles)):
        digest.update(len(texts).to_bytes(8, "little"))
        for text in texts:
            content = text.encode("utf-8", "surrogatepass")
            # The length keeps ('ab', 'c') apart from ('a', 'bc').
            digest.update(len(content).to_bytes(8, "little") + content)
    for samples in parts:
        for array in (samples.items, samples.start, samples.end):
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()
