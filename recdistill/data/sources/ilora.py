"""``dataset=ilora``: iLoRA's own data, split already (NeurIPS 2024 release).

Histories of at most ten items, the next item of each, and titles. Candidates are not in the files: the release draws
them anew, 19 items outside the history and the target.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recdistill.config.data import DataConfig
from recdistill.data.pickled_frame import read_pickled_frame
from recdistill.data.released_rows import (
    Rows,
    filled_titles,
    find_file,
    released_folder,
    say_folder_taken,
    sequences_of_rows,
)
from recdistill.data.sequences import SequenceData
from recdistill.data.tables import MissingTitles
from recdistill.data.text_files import open_text, readable
from recdistill.errors import InputError, one_line
from recdistill.registry import SOURCES

FILES = {
    "train": ("train.jsonl", "train.jsonl.gz", "train_data.df"),
    "validation": ("valid.jsonl", "valid.jsonl.gz", "Val_data.df"),
    "test": ("test.jsonl", "test.jsonl.gz", "Test_data.df"),
}
TITLE_FILES = ("titles.tsv", "id2name.txt")
SEPARATORS = {".tsv": "\t", ".txt": "::"}
SHORTEST_HISTORY = 3

Row = tuple[list[int], int]


@SOURCES.register("ilora")
def ilora(config: DataConfig) -> SequenceData:
    """Read the folder ``interactions``; histories of fewer than 3 items are left out as in the release.

    ``train``, ``valid`` and ``test``, each as ``.jsonl`` (gzipped or not; rows ``{"history": [ids], "next": id}``),
    and ``titles.tsv`` (a header, then id and title). Or what the release holds of Last.fm and Steam:
    ``train_data.df``, ``Val_data.df`` and ``Test_data.df`` (columns ``seq``, ``len_seq`` and ``next``; read without
    running what a pickle can run) and ``id2name.txt``. Ids are 0 .. V-1; an id without title gets one made of it. The
    files name no users, so every row is a user of its own. Blank lines are no rows. Raises InputError, one line.
    """
    if config.items:
        raise InputError(f"items={config.items}: dataset=ilora has its titles in the folder; leave it out")
    folder = released_folder("ilora", config.interactions, FILES["train"][0])
    titles = read_titles(find_file(folder, TITLE_FILES), config.missing_titles)
    paths = {part: find_file(folder, names) for part, names in FILES.items()}
    found: dict[str, Rows] = {}
    for part, path in paths.items():
        rows = [row for row in read_rows(path, len(titles)) if len(row[0]) >= SHORTEST_HISTORY]
        if not rows:
            raise InputError(f"{path}: holds no history of {SHORTEST_HISTORY} items or more; give one at least")
        found[part] = as_arrays(rows)
    say_folder_taken("ilora", paths, found, len(titles))
    return sequences_of_rows("ilora", titles, found)


def as_arrays(rows: list[Row]) -> Rows:
    """Histories padded on the right, their lengths and the next items."""
    length = np.array([len(history) for history, _ in rows], dtype=np.int64)
    history = np.zeros((len(rows), length.max()), dtype=np.int64)
    history[np.arange(history.shape[1]) < length[:, None]] = np.concatenate([history for history, _ in rows])
    return history, length, np.array([following for _, following in rows], dtype=np.int64)


def read_rows(path: Path, num_items: int) -> Iterator[Row]:
    """Histories and next items, checked against the number of titles. Raises InputError naming the row."""
    for number, (history, following) in enumerate(pickled_rows(path) if path.suffix == ".df" else json_rows(path), 1):
        for item in (*history, following):
            if not isinstance(item, (int, np.integer)) or isinstance(item, bool) or not 0 <= item < num_items:
                raise InputError(
                    f"{path}: row {number}: item {one_line(item)} is none of 0 .. {num_items - 1}; the titles end there"
                )
        yield [int(item) for item in history], int(following)


def json_rows(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON object a line; blank lines are none. Raises InputError."""
    number = 0
    try:
        with open_text(path) as lines:
            for line in lines:
                if not line.strip():
                    continue
                number += 1
                row = json.loads(line)
                history, following = row["history"], row["next"]
                if not isinstance(history, list):
                    raise ValueError("history is no list")
                yield history, following
    except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f'{path}: row {max(1, number)}: {one_line(error)}; a row is {{"history": [ids], "next": id}}'
        ) from None


def pickled_rows(path: Path) -> Iterator[Row]:
    """Rows of a released frame. Raises InputError."""
    frame = read_pickled_frame(path)
    missing = [name for name in ("seq", "len_seq", "next") if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]!r}; it needs seq, len_seq and next")
    for number, (history, length, following) in enumerate(
        zip(frame["seq"], frame["len_seq"], frame["next"], strict=True), 1
    ):
        if not isinstance(history, (list, tuple, np.ndarray)) or not 0 <= length <= len(history):
            raise InputError(f"{path}: row {number}: seq and len_seq do not fit; seq is a list of at least len_seq ids")
        yield list(history[: int(length)]), following


def read_titles(path: Path, missing_titles: MissingTitles) -> tuple[str, ...]:
    """Titles by item, from lines of id and title. Raises InputError unless the ids are 0 .. V-1, each once.

    Only the tab-separated file has a header. Where fewer than half of the ids have a line, they are no such ids.
    """
    separator = SEPARATORS[path.suffix]
    with readable(path), open_text(path) as file:
        # Not splitlines: U+2028 and the like, which titles hold, end no line.
        lines = [line.rstrip("\r\n") for line in file if line.strip()]
    has_header = path.suffix == ".tsv" and bool(lines) and not lines[0].partition(separator)[0].strip().isdecimal()
    titles: dict[int, str] = {}
    for number, line in enumerate(lines[has_header:], 1):
        item, found, title = line.partition(separator)
        if not found or not item.strip().isdecimal():
            raise InputError(f"{path}: row {number}: {one_line(line)!r} is no id, {separator!r} and title; mend it")
        if int(item) in titles:
            raise InputError(f"{path}: row {number}: item {int(item)} stands twice; keep one row an item")
        titles[int(item)] = title.strip()
    size = max(titles, default=0) + 1
    if 2 * len(titles) < size:
        missing = next(item for item in range(size) if item not in titles)
        raise InputError(f"{path}: has no item {missing} ({size - len(titles)} of {size} missing); ids are 0 .. V-1")
    return filled_titles({item: titles.get(item, "") for item in range(size)}, str(path), missing_titles)
