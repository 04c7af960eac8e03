"""Vectors of texts on disk, found by the text: a model reads a text once, whatever asks for it.

A folder for each model and reading; in it files that are written once and whole, each with some texts' digests,
vectors, tokens and seconds. Several processes may add to one folder at a time.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from recdistill.data.downloads import cache_dir
from recdistill.errors import InputError, one_line
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint

FOLDER = "views"


def text_digest(text: str) -> bytes:
    """SHA-256 of a text; a lone surrogate, which has no UTF-8, counts as itself."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def digest_rows(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Digests of texts, uint8 [n, 32]."""
    return np.frombuffer(b"".join(map(text_digest, texts)), dtype=np.uint8).reshape(-1, 32)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Vectors of n texts, and what each took.

    Attributes:
        vectors: float32 [n, D].
        tokens: int64 [n], tokens that a model read, 0 where it does not tell.
        seconds: float32 [n].
    """

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int64]
    seconds: NDArray[np.float32]


@dataclass(frozen=True)
class Kept:
    """One text's vector [D], its tokens and its seconds."""

    vector: NDArray[np.float32]
    tokens: int
    seconds: float


class VectorCache:
    """The kept vectors of one model and reading.

    Args:
        identity: JSON values that say what makes the vectors; another identity is another folder.
        root: folder of all caches; None for the user's.
    """

    def __init__(self, identity: Mapping[str, Any], root: Path | None = None) -> None:
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
        self.folder = (root or cache_dir() / FOLDER) / name

    def read(self, digests: Iterable[bytes]) -> dict[bytes, Kept]:
        """Those of the texts that are kept, by digest. A file that cannot be read is as if it were not there."""
        wanted, found = set(digests), dict[bytes, Kept]()
        for path in sorted(self.folder.glob("*.safetensors")) if wanted else ():
            read = read_checkpoint(path)
            if read is None or not {"texts", "vectors", "tokens", "seconds"} <= read[0].keys():
                continue
            tensors = {name: tensor.numpy() for name, tensor in read[0].items()}
            for row, one in enumerate(tensors["texts"]):
                digest = one.tobytes()
                if digest in wanted and digest not in found:
                    vector = tensors["vectors"][row].copy()
                    found[digest] = Kept(vector, int(tensors["tokens"][row]), float(tensors["seconds"][row]))
        return found

    def add(self, texts: Sequence[str], encoded: Encoded) -> None:
        """Keep the texts' vectors; the file appears only when whole. Raises InputError where it cannot be written."""
        rows = digest_rows(texts)
        name = hashlib.sha256(rows.tobytes()).hexdigest()[:20]
        tensors = {
            "texts": torch.from_numpy(rows.copy()),
            "vectors": torch.from_numpy(encoded.vectors),
            "tokens": torch.from_numpy(encoded.tokens),
            "seconds": torch.from_numpy(encoded.seconds),
        }
        try:
            write_checkpoint(self.folder / f"{name}.safetensors", tensors, {"texts": len(texts)})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"cache {self.folder}: cannot be written ({one_line(error)}); set RECDISTILL_CACHE to a folder that can"
            ) from None
