"""The SHA-256 of a split data set, by which a run tells whether it fits the data at hand."""

import hashlib
from collections.abc import Iterable

import numpy as np

from recdistill.data.samples import Int64Array, Samples


def fingerprint(
    item_ids: Iterable[str], titles: Iterable[str], parts: Iterable[Samples], drawn: Iterable[Int64Array] = ()
) -> str:
    """Hex SHA-256 over the catalogue and, for each part in order, its flat items, starts and ends.

    Targets that stand apart from the items, and the new items that were ``drawn`` for a part, follow where there are
    any: data without them keep the hash that they always had.

    Equal content gives an equal hash on every platform and in every version of Python.
    """
    digest = hashlib.sha256(b"recdistill data 1")
    for texts in (tuple(item_ids), tuple(titles)):
        digest.update(len(texts).to_bytes(8, "little"))
        for text in texts:
            content = text.encode("utf-8", "surrogatepass")
            # The length keeps ('ab', 'c') apart from ('a', 'bc').
            digest.update(len(content).to_bytes(8, "little") + content)
    arrays: list[Int64Array] = []
    for samples in parts:
        arrays += [samples.items, samples.start, samples.end]
        arrays += [] if samples.target is None else [samples.target]
    for array in (*arrays, *drawn):
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()
