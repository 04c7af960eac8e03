"""Digests of the files that options name: the same path with another content is another run."""

import hashlib
from pathlib import Path

from recdistill.config import Config
from recdistill.errors import InputError

# What a model or DLLM2Rec's teacher files are made of; their folder may hold logs and checkpoints besides.
SUFFIXES = {".json", ".safetensors", ".bin", ".gguf", ".model", ".txt", ".pt"}
PIECE, PIECES = 1 << 16, 16


def contents_of(config: Config, *options: str) -> dict[str, str]:
    """A digest for each of these options that names a file or folder here, for `tracking.runs.step_run`.

    Raises InputError where it cannot be read.
    """
    found = {}
    for option in options:
        given = str(getattr(config, option))
        path = Path(given).expanduser()
        try:
            if given and path.exists():
                found[f"{option} content"] = content_digest(path)
        except OSError as error:
            raise InputError(f"{option}={given}: cannot be read ({error.strerror}); give another path") from None
    return found


def content_digest(path: Path) -> str:
    """SHA-256 over name, size and sixteen pieces of a file, or of each of a folder's files (of `SUFFIXES`).

    A file of up to 1 MiB counts whole. Of a larger one pieces are enough to tell trained weights apart, which differ
    everywhere, and to read every byte of a large LLM takes minutes.
    """
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in SUFFIXES)
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as source:
            for begin in range(0, size, max(PIECE, size // PIECES)):
                source.seek(begin)
                digest.update(source.read(PIECE))
    return digest.hexdigest()
