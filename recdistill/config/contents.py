"""Digests of the files that options name: the same path with another content is another run."""

import hashlib
from pathlib import Path
from typing import Any

from recdistill.config.option import Option
from recdistill.config.own_files import module_digest
from recdistill.config.table_folders import files_inside
from recdistill.errors import InputError

# What a model or DLLM2Rec's teacher files are made of; their folder may hold logs and checkpoints besides.
SUFFIXES = {".json", ".safetensors", ".bin", ".gguf", ".model", ".txt", ".pt"}
#: What weights come as: of a large file pieces tell them apart, which differ everywhere.
WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".pkl"}
#: Of weights one piece in each MiB is read, and at least so many.
PIECE, EVERY, PIECES = 1 << 16, 1 << 20, 16


def existing(one: Option, value: Any) -> Path | None:
    """The path that an option's value names where there is something, else None; a folder is no plan.

    Raises InputError where nothing is there, unless the option takes names, too: of an LLM, of a plan.
    """
    if not value:
        return None
    kind = one.metadata["path"]
    try:
        path = Path(str(value)).expanduser()
        there = path.is_file() if kind == "file-or-name" else path.exists()
    except (OSError, RuntimeError, ValueError):  # too long a name, a user that is not there, a zero byte
        there = False
    if there:
        return path
    if kind == "read":
        raise InputError(f"{one.name}={value}: no such file or folder; give the path of one")
    return None


def content_digest(option: str, path: Path) -> str:
    """SHA-256 over size and content of a file, or over sizes, names and pieces of a folder's files (of `SUFFIXES`).

    Of weights, and of such files of a folder, 64 KiB of each MiB count: enough to tell weights apart of which a matrix
    was trained, and to read every byte of a large LLM takes minutes. Of a folder that is a table every byte of its
    Parquet files counts, those of its partitions included, by their places in it. A Python file stands with those
    beside it that it imports. Raises InputError, naming the option, where it cannot be read.
    """
    try:
        return module_digest(path) if path.suffix == ".py" and path.is_file() else _digest(path)
    except OSError as error:
        raise InputError(f"{option}={path}: cannot be read ({error.strerror}); give another path") from None


def _digest(path: Path) -> str:
    if path.is_file():
        files, whole_files = [path], {path} if path.suffix not in WEIGHTS else set()
    else:
        whole_files = set(files_inside(path))
        files = sorted(whole_files.union(one for one in path.iterdir() if one.suffix in SUFFIXES))
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        whole = file in whole_files
        digest.update(f"{file.relative_to(path).as_posix() if file != path else ''} {size} ".encode())
        with file.open("rb") as source:
            for begin in range(0, size, PIECE if whole else min(EVERY, max(PIECE, size // PIECES))):
                source.seek(begin)
                digest.update(source.read(PIECE))
    return digest.hexdigest()
