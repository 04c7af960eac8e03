"""Folders of Parquet, as Spark and Arrow write them: which files of a folder hold its table."""

from collections.abc import Iterator
from pathlib import Path

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")


def files_inside(folder: Path) -> Iterator[Path]:
    """The Parquet files of a folder and of its partitions, folders named ``column=value``; other folders are not read.

    A folder given by mistake may be that of the whole disk.
    """
    try:
        inside = list(folder.iterdir())
    except OSError:
        return
    for one in inside:
        # As Spark and Arrow do: what begins so is no data.
        if one.name[0] in "._":
            continue
        if "=" in one.name and one.is_dir():
            yield from files_inside(one)
        elif one.suffix in PARQUET_SUFFIXES and one.is_file():
            yield one
