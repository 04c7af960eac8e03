"""The state of files on disk: what tells, without reading them, that what was read of a path may be stale."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

#: What tells a file from another content of it: its path, its number on the disk, its size and its last change.
FileState = tuple[str, int, int, int]


def state_of(paths: Iterable[str]) -> tuple[FileState, ...]:
    """The state of all that a reader of these paths may open; it changes where a file is changed, added or taken away.

    Of a folder these are its files and those of its partitions, folders named ``column=value``; of a file also those
    beside it that are called like it up to the first point, as RecBole's ``x.item`` beside ``x.inter``. A path that is
    empty or leads nowhere has none.
    """
    return tuple(state for path in paths if path for state in states(Path(path).expanduser()))


def states(place: Path) -> Iterator[FileState]:
    """The state of one path's files, in the order of their names."""
    for file in sorted(files_of(place)):
        # A file that goes meanwhile has no state.
        with suppress(OSError):
            about = file.stat()
            yield str(file), about.st_ino, about.st_size, about.st_mtime_ns


def files_of(place: Path) -> Iterator[Path]:
    """What is in a folder and its partitions; a file and those beside it."""
    with suppress(OSError):
        if place.is_dir():
            for inside in place.iterdir():
                yield inside
                if "=" in inside.name and inside.is_dir():
                    yield from files_of(inside)
        elif place.exists():
            yield place
            begin = place.name.partition(".")[0] + "."
            yield from (one for one in place.parent.iterdir() if one != place and one.name.startswith(begin))
