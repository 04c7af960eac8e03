"""``dataset=dllm2rec``: DLLM2Rec's own files, split already, histories right-padded (RecSys 2024 release)."""

import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.columns import ITEM_COLUMNS
from recdistill.data.pickled_frame import read_pickled_frame
from recdistill.data.released_rows import (
    Rows,
    filled_titles,
    find_file,
    released_folder,
    say_folder_taken,
    sequences_of_rows,
    title_of_number,
)
from recdistill.data.samples import Int64Array
from recdistill.data.sequences import SequenceData
from recdistill.data.table_files import existing_file, read_table
from recdistill.data.tables import MissingTitles, check_items
from recdistill.errors import InputError, one_line
from recdistill.registry import SOURCES

FILES = {
    "train": ("train_data.df", "train_data.csv", "train_data.csv.gz"),
    "validation": ("val_data.df", "val_data.csv", "val_data.csv.gz"),
    "test": ("test_data.df", "test_data.csv", "test_data.csv.gz"),
}
COLUMNS = ("seq", "len_seq", "next")
STATISTICS_FILE = "data_statis.df"


@SOURCES.register("dllm2rec")
def dllm2rec(config: DataConfig) -> SequenceData:
    """Read the folder ``interactions``: train_data.df or .csv, val_data.csv and test_data.csv.

    A row is a history ``seq`` right-padded with V, its real length ``len_seq`` and the next item ``next``. V
    is the id found behind the real items and ``item_num`` in data_statis.df, where that is there; where no row is
    padded and no such file is, one more than the largest item. Titles come from the file ``items`` (its ids among
    0 .. V-1, any order; further columns are kept as text), else they are 'item <id>', as is that of an item which the
    file leaves out. The files name no users, so every row is a user of its own. Rows of a pickled frame whose labels
    are 0 .. N-1 in another order are taken in the order of their labels, by which the release looks its teacher files
    up. Raises InputError, one line.
    """
    folder = released_folder("dllm2rec", config.interactions, FILES["train"][0])
    paths = {part: find_file(folder, names) for part, names in FILES.items()}
    rows = {part: read_rows(path) for part, path in paths.items()}
    num_items = catalogue_size(paths, rows, stated_size(folder / STATISTICS_FILE))
    say_folder_taken("dllm2rec", paths, rows, num_items)
    if config.items:
        titles, columns = read_items(config.items, num_items, config.missing_titles)
    else:
        titles, columns = tuple(map(title_of_number, range(num_items))), {}
    return sequences_of_rows("dllm2rec", titles, rows, columns)


def read_rows(path: Path) -> Rows:
    """Histories int64 [N, L], lengths int64 [N] and next items int64 [N] of one file. Raises InputError."""
    frame = in_order_of_labels(read_pickled_frame(path)) if path.suffix == ".df" else read_csv_frame(path)
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


def in_order_of_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame sorted by its row labels where they are 0 .. N-1, as it is where they are anything else."""
    labels = frame.index.to_numpy()
    if labels.dtype.kind not in "iu" or not np.array_equal(np.sort(labels), np.arange(len(labels))):
        return frame
    return frame.iloc[np.argsort(labels)]


def read_csv_frame(path: Path) -> pd.DataFrame:
    """A CSV file of rows, gzipped or not. Raises InputError."""
    try:
        return pd.read_csv(path)
    except (ValueError, OSError, EOFError, zlib.error) as error:
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


def stated_size(path: Path) -> int | None:
    """``item_num`` of the release's data_statis.df, or None where there is none. Raises InputError."""
    if not path.is_file():
        return None
    frame = read_pickled_frame(path)
    if "item_num" not in frame.columns or len(frame) != 1:
        raise InputError(f"{path}: must hold one row with item_num, the number of items; mend it or leave it out")
    return int(whole_numbers(path, "item_num", frame["item_num"].to_numpy())[0])


def catalogue_size(paths: dict[str, Path], rows: dict[str, Rows], stated: int | None) -> int:
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
    size = next(iter(padding), largest + 1 if stated is None else stated)
    if stated is not None and size != stated:
        raise InputError(
            f"{padding[size]} pads with {size}, {STATISTICS_FILE} says item_num {stated}; they must be the same"
        )
    if largest >= size:
        raise InputError(f"{holder}: item {largest} is not below the padding id {size}; check seq and len_seq")
    return size


def read_items(
    items: str, num_items: int, missing_titles: MissingTitles
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Titles by item id, and further columns by their names.

    Raises InputError for ids that are not in 0 .. V-1, and for missing titles if asked to.
    """
    path = existing_file("items", items, "dllm2rec", folders=True)
    table, _ = read_table(path, ITEM_COLUMNS, {}, further=True)
    check_items(table, str(path))
    given = dict(zip(table["item"], table["title"], strict=True))
    by_number = {item: given.pop(str(item), "") for item in range(num_items)}
    if given:
        raise InputError(
            f"{items}: item {next(iter(given))!r} is none of 0 .. {num_items - 1} ({len(given)} such); leave it out"
        )
    in_order = table.set_index("item").reindex([str(item) for item in range(num_items)], fill_value="")
    columns = {name: tuple(in_order[name]) for name in in_order.columns if name != "title"}
    return filled_titles(by_number, items, missing_titles), columns
