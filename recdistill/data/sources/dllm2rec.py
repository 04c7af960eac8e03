"""DLLM2Rec's own files, read and written: samples split already, histories right-padded (RecSys 2024 release)."""

import json
import pickle
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.sources.csv_files import one_line, read_items
from recdistill.data.fingerprint import fingerprint
from recdistill.data.pickled_frame import read_pickled_frame
from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import SOURCES

FILES = {
    "train": ("train_data.df", "train_data.csv", "train_data.csv.gz"),
    "validation": ("val_data.df", "val_data.csv", "val_data.csv.gz"),
    "test": ("test_data.df", "test_data.csv", "test_data.csv.gz"),
}
COLUMNS = ("seq", "len_seq", "next")
STATISTICS_FILE = "data_statis.df"
ITEMS_FILE = "items.csv"
# The release has this number written into its sampling of negatives.
RELEASED_LENGTH = 10

#: Histories int64 [N, L], their lengths int64 [N] and next items int64 [N].
Rows = tuple[Int64Array, Int64Array, Int64Array]


@SOURCES.register("dllm2rec")
def dllm2rec(config: DataConfig) -> SequenceData:
    """DLLM2Rec's own split files in the folder ``interactions``; see `read_dllm2rec`."""
    return read_dllm2rec(config.interactions, config.items)



def read_dllm2rec(interactions: str, items: str = "") -> SequenceData:
    """The samples in the folder ``interactions``: train_data.df or .csv, val_data.csv and test_data.csv.

    A row is a history ``seq`` right-padded with V, its real length ``len_seq`` and the next item ``next``. V
    is the id found behind the real items and ``item_num`` in data_statis.df, where that is there; where no row is
    padded and no such file is, one more than the largest item. Titles come from the CSV file ``items`` (its ids
    0 .. V-1, any order), else they are 'item <id>'. The files name no users, so every row is a user of its own.
    Rows of a pickled frame whose labels are 0 .. N-1 in another order are taken in the order of their labels, by
    which the release looks its teacher files up. Raises InputError, one line.
    """
    if not interactions:
        raise InputError("interactions=: dataset=dllm2rec needs a folder with train_data.df; set interactions=<folder>")
    folder = Path(interactions).expanduser()
    if not folder.is_dir():
        raise InputError(f"interactions={interactions}: no such folder; give the folder with train_data.df")
    paths = {part: find_file(folder, names) for part, names in FILES.items()}
    rows = {part: read_rows(path) for part, path in paths.items()}
    num_items = catalogue_size(paths, rows, stated_size(folder / STATISTICS_FILE))
    titles = read_titles(items, num_items) if items else tuple(f"item {item}" for item in range(num_items))
    return sequences_of_rows("dllm2rec", titles, rows)


def sequences_of_rows(name: str, titles: tuple[str, ...], rows: Mapping[str, Rows]) -> SequenceData:
    """A data set that came split: items are 0 .. V-1, and every row is a user of its own.

    ``rows`` are those of ``train``, ``validation`` and ``test``, in this order.
    """
    item_ids = tuple(str(item) for item in range(len(titles)))
    parts: list[Samples] = []
    user_ids: list[str] = []
    for part, (history, length, following) in rows.items():
        parts.append(samples_of_rows(history, length, following, first_user=len(user_ids)))
        user_ids += [f"{part} row {row}" for row in range(len(length))]
    train, validation, test = parts
    return SequenceData(
        name=name,
        split="released",
        num_items=len(titles),
        titles=titles,
        item_ids=item_ids,
        user_ids=tuple(user_ids),
        train=train,
        validation=validation,
        test=test,
        fingerprint=fingerprint(item_ids, titles, parts),
    )


def write_dllm2rec(folder: str | Path, data: SequenceData, length: int = RELEASED_LENGTH) -> None:
    """Write ``train_data.df``, ``val_data.csv``, ``test_data.csv``, ``data_statis.df`` and ``items.csv``.

    Row i of a file is sample i of its part: the last ``length`` items of its history, so that teacher files
    aligned with the samples are aligned with the rows. Histories longer than ``length`` are cut, and what is read
    back is then other data, with another fingerprint. The release reads the folder as it is with ``length`` 10,
    and does not look at ``items.csv`` (item, title, source_id), which `read_dllm2rec` takes as ``items``.

    Args:
        folder: where to, made if absent; other files in it stay.
        data: the data set.
        length: history items a row.

    Raises:
        InputError: the length is below 1.
    """
    if length < 1:
        raise InputError(f"length is {length}; give at least 1 history item a row ({RELEASED_LENGTH} for the release)")
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        complete = Path(scratch)
        write_pickled(complete / FILES["train"][0], columns_of(data.train, length, data.padding_id))
        write_pickled(complete / STATISTICS_FILE, {"seq_size": [length], "item_num": [data.num_items]})
        for part, samples in (("validation", data.validation), ("test", data.test)):
            frame = pd.DataFrame(columns_of(samples, length, data.padding_id))
            frame.to_csv(complete / FILES[part][1], index=False)
        items = {"item": range(data.num_items), "title": data.titles, "source_id": data.item_ids}
        pd.DataFrame(items).to_csv(complete / ITEMS_FILE, index=False)
        for path in sorted(complete.iterdir()):
            path.replace(folder / path.name)


def columns_of(samples: Samples, length: int, padding_id: int) -> dict[str, list[Any]]:
    """The columns of one file, as plain Python numbers and lists."""
    history, real = samples.windows_of(range(len(samples)), length, padding_id)
    return {"seq": history.tolist(), "len_seq": real.tolist(), "next": samples.targets.tolist()}


class PlainFrame:
    """Pickles as the call ``pandas.DataFrame(columns)``, which every version of pandas and NumPy can make."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    def __reduce__(self) -> tuple[Any, ...]:
        return pd.DataFrame, (self.columns,)


def write_pickled(path: Path, columns: dict[str, list[Any]]) -> None:
    """A frame of plain columns for ``pandas.read_pickle``."""
    path.write_bytes(pickle.dumps(PlainFrame(columns), protocol=4))


def find_file(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` in the folder. Raises InputError where there is none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: holds no {names[0]} and no {names[1]}; put one there")


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
