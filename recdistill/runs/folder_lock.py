"""A folder held by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` alone; a second process waits. Afterwards an empty folder is gone, and so is its lock file."""
    path = folder.with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(path):
        folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()  # where it is empty
            path.unlink(missing_ok=True)


def lock_file(path: Path) -> IO[str]:
    """The file at ``path``, made where it is missing, open and locked.

    Who holds it may remove it: a lock won on a removed file is given up for the file that is there now.
    """
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that makes the same run ({path.stem})", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
