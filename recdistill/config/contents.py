"""Digests of the files that options name: the same path with another content is another run."""

import hashlib
from pathlib import Path
from typing import Any

from recdistill.errors import InputError

# What a model or DLLM2Rec's teacher files are made of; their folder may hold logs and checkpoints besides.
SUFFIXES = {".json", ".safetensors", ".bin", ".gguf", ".model", ".txt", ".pt"}
PIECE, PIECES = 1 << 16, 16


def existing(value: Any) -> Path | None:
    """The path that an option's value names where there is something, else None."""
    try:
        path = Path(str(value)).expanduser()
        return path if value and path.exists() else None
    except (OSError, RuntimeError):  # too long a name, a user that is not there
        return None


def content_digest(option: str, path: Path) -> str:
    """SHA-256 over size and sixteen pieces of a file, or over these and the names of a folder's files (of `SUFFIXES`).

    A file of up to 1 MiB counts whole. Of a larger one pieces are enough to tell trained weights apart, which differ
    everywhere, and to read every byte of a large LLM takes minutes. Raises InputError, naming the option, where it
    cannot be read.
    """
    try:
        return _digest(path)
    except OSError as error:
        raise InputError(f"{option}={path}: cannot be read ({error.strerror}); give another path") from None


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in SUFFIXES)
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if file != path else ''} {size} ".encode())
        with file.open("rb") as source:
            for begin in range(0, size, max(PIECE, size // PIECES)):
                source.seek(begin)
                digest.update(source.read(PIECE))
    return digest.hexdigest()
