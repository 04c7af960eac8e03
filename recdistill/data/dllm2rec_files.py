"""DLLM2Rec's own files: samples split already, histories right-padded (RecSys 2024 release)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from recdistill.data.csv_files import one_line, read_items
from recdistill.data.fingerprint import fingerprint
from recdistill.data.pickled_frame import read_pickled_frame
from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError

FILES = {
    "train": ("train_data.df", "train_data.csv", "train_data.csv.gz"),
    "validation": ("val_data.df", "val_data.csv", "val_data.csv.gz"),
    "test": ("test_data.df", "test_data.csv", "test_data.csv.gz"),
}
COLUMNS = ("seq", "len_seq", "next")


def read_dllm2rec(interactions: str, items: str = "") -> SequenceData:
    """The samples in the folder ``interactions``: train_data.df or .csv, val_data.csv and test_data.csv.

    A row is a history ``seq`` right-padded with V, its real length ``len_seq`` and the next item ``next``. V
    is the id found behind the real items; where no row is padded, one more than the largest item. Titles come
    from the CSV file ``items`` (its ids 0 .. V-1, any order), else they are 'item <id>'. The files name no
    users, so every row is a user of its own. Raises InputError, one line.
    """
    if not interactions:
        raise InputError("interactions=: dataset=dllm2rec needs a folder with train_data.df; set interactions=<folder>")
    folder = Path(interactions).expanduser()
    if not folder.is_dir():
        raise InputError(f"interactions={interactions}: no such folder; give the folder with train_data.df")
    paths = {part: find_file(folder, names) for part, names in FILES.items()}
    rows = {part: read_rows(path) for part, path in paths.items()}
    num_items = catalogue_size(paths, rows)
    item_ids = tuple(str(item) for item in range(num_items))
    titles = read_titles(items, num_items) if items else tuple(f"item {item}" for item in item_ids)
    parts: list[Samples] = []
    user_ids: list[str] = []
    for part, (history, length, following) in rows.items():
        parts.append(samples_of_rows(history, length, following, first_user=len(user_ids)))
        user_ids += [f"{part} row {row}" for row in range(len(length))]
    return SequenceData(
        name="dllm2rec",
        split="released",
        num_items=num_items,
        titles=titles,
        item_ids=item_ids,
        user_ids=tuple(user_ids),
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        fingerprint=fingerprint(item_ids, titles, parts),
    )


Rows = tuple[Int64Array, Int64Array, Int64Array]


def find_file(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` in the folder. Raises InputError where there is none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: holds no {names[0]} and no {names[1]}; put one there")


def read_rows(path: Path) -> Rows:
    """Histories int64 [N, L], lengths int64 [N] and next items int64 [N] of one file. Raises InputError."""
    frame = read_pickled_frame(path) if path.suffix == ".df" else read_csv_frame(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        found = one_line(", ".join(map(str, frame.columns)))
        raise InputError(f"{path}: has no column {missing[0]!r}, found {found}; it needs {', '.join(COLUMNS)}")
    if frame.empty:
        raise InputError(f"{path}: holds no rows; give at least one")
    lists = [read_list(path, row, value) for row, value in enumerate(frame["seq"], start=1)]
    width = len(lists[0])
    for row, values in enumerate(lists, start=1):
        if len(values) != width:
            raise InputError(f"{path}: row {row}: seq has {len(values)} items, row 1 has {width}; pad them alike")
    history = whole_numbers(path, "seq", np.array(lists).reshape(-1)).reshape(len(lists), width)
    length = whole_numbers(path, "len_seq", frame["len_seq"].to_numpy())
    following = whole_numbers(path, "next", frame["next"].to_numpy())
    wrong = np.flatnonzero((length < 1) | (length > width))
    if len(wrong):
        raise InputError(
            f"{path}: row {wrong[0] + 1}: len_seq={length[wrong[0]]}, seq has {width}; must be 1 to {width}"
        )
    return history, length, following


def read_csv_frame(path: Path) -> pd.DataFrame:
    """A CSV file of rows, gzipped or not. Raises InputError."""
    try:
        return pd.read_csv(path)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check the file") from None


def read_list(path: Path, row: int, value: object) -> list[float]:
    """A history, which a CSV file writes as '[1, 2, 3]'. Raises InputError for anything else."""
    try:
        values = json.loads(value) if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        values = None
    if not values or not all(isinstance(item, (int, float, np.integer, np.floating)) for item in values):
        raise InputError(f"{path}: row {row}: seq is {one_line(value)!r}; must be a list of item ids")
    return values


def whole_numbers(path: Path, column: str, values: np.ndarray) -> Int64Array:
    """int64 [N]; the release writes ids such as 16713.0. Raises InputError for all but whole numbers >= 0."""
    numbers = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers % 1 != 0) | (numbers < 0) | (numbers >= 2.0**53))
    if len(wrong):
        raise InputError(f"{path}: {column} holds {one_line(values[wrong[0]])}; item ids and lengths are whole numbers")
    return numbers.astype(np.int64)


def catalogue_size(paths: dict[str, Path], rows: dict[str, Rows]) -> int:
    """V, the padding id, over all files. Raises InputError where they disagree or a real id reaches it."""
    padding: dict[int, Path] = {}
    largest, holder = -1, paths["train"]
    for part, (history, length, following) in rows.items():
        behind = np.arange(history.shape[1]) >= length[:, None]
        padding |= {int(value): paths[part] for value in np.unique(history[behind])}
        top = int(max(history[~behind].max(), following.max()))
        if top > largest:
            largest, holder = top, paths[part]
    if len(padding) > 1:
        (one, first), (other, second) = list(padding.items())[:2]
        raise InputError(
            f"{first} pads with {one} and {second} with {other}; one padding id, the number of items, must do"
        )
    size = next(iter(padding), largest + 1)
    if largest >= size:
        raise InputError(f"{holder}: item {largest} is not below the padding id {size}; check seq and len_seq")
    return size


def read_titles(items: str, num_items: int) -> tuple[str, ...]:
    """Titles by item id. Raises InputError unless the file's ids are 0 .. V-1."""
    item_ids, titles = read_items(items)
    by_id = dict(zip(item_ids, titles, strict=True))
    missing = [item for item in range(num_items) if str(item) not in by_id]
    if missing:
        raise InputError(f"{items}: has no item {missing[0]} ({len(missing)} of {num_items} missing); add its title")
    if len(by_id) > num_items:
        raise InputError(f"{items}: has {len(by_id)} items, the padding id says {num_items}; leave the others out")
    return tuple(by_id[str(item)] for item in range(num_items))


def samples_of_rows(history: Int64Array, length: Int64Array, following: Int64Array, first_user: int) -> Samples:
    """Pointers over a flat array in which each row's real items and its next item stand one after another."""
    stop = np.cumsum(length + 1)
    start = stop - length - 1
    items = np.empty(stop[-1], dtype=np.int64)
    # A row's slots but the last are its history, row by row, which is the order of a boolean selection.
    is_target = np.zeros(len(items), dtype=bool)
    is_target[stop - 1] = True
    items[is_target] = following
    items[~is_target] = history[np.arange(history.shape[1]) < length[:, None]]
    return Samples(items, start, stop - 1, np.arange(first_user, first_user + len(length)))
