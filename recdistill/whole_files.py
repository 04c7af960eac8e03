"""Files and folders that appear under their names only when complete.

A kill leaves a file as it was, or new; of a folder that is replaced, in the moment between two renames, none.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write to, which takes the name ``path`` when the block ends, and is removed where it fails.

    The folder of ``path`` is made. Of two processes that write the same file, the later one's is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file: renaming is atomic only within one file system.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text as a `whole_file`, in UTF-8."""
    with whole_file(path) as place:
        place.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """An empty folder to fill, which takes the name ``folder`` when the block ends, and is removed where it fails.

    Args:
        folder: its parent is made.
        replace: whether it takes the place of one that is there; else the first one is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        complete = Path(scratch) / folder.name
        complete.mkdir()
        yield complete
        if replace:
            with suppress(FileNotFoundError):
                # Moved aside at once, and deleted with what was written meanwhile.
                folder.rename(Path(scratch) / f"{folder.name}.before")
        try:
            complete.rename(folder)
        except OSError:
            # Another process was first.
            if replace or not folder.is_dir():
                raise
