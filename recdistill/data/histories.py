"""A file of histories to recommend for, and the file of recommendations made from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from recdistill.errors import InputError, one_line

RECOMMENDED = ("row", "rank", "item", "title", "score", "unknown_items", "fallback")
FORMATS = (".jsonl", ".parquet", ".csv")
SEPARATOR = "|"  # between the ids of a history in a CSV file


def read_histories(file: str) -> pd.DataFrame:
    """Read rows with a column ``history`` of lists of item ids, oldest first; all other columns as they are.

    In ``.jsonl`` a line is an object, in ``.parquet`` the column holds lists, and in ``.csv`` it holds ids separated
    by ``|``, as do the optional lists ``exclude``. Whole numbers in place of ids become text.

    A column ``k``, where there is one, holds numbers of at least 1, or nothing.

    Raises InputError, naming the file, for any other file, and for a row (counted from 1) that is not like that.
    """
    path = Path(file).expanduser()
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".jsonl": read_json_lines,
        ".parquet": pd.read_parquet,
        ".csv": read_csv,
    }
    if path.suffix not in readers:
        raise InputError(f"histories={file}: must end in {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"histories={file}: there is no such file")
    try:
        table = readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None
    if "history" not in table:
        raise InputError(f"{path}: has no column history; it has {', '.join(map(str, table.columns)) or 'none'}")
    if not len(table):
        raise InputError(f"{path}: holds no row")
    for column in ("history", "exclude"):
        if column in table:
            lists = [text_ids(path, row, column, value) for row, value in enumerate(table[column], 1)]
            table[column] = pd.Series(lists, index=table.index, dtype=object)
    if "k" in table:
        table["k"] = numbers(path, table["k"])
    return table


def numbers(path: Path, column: pd.Series) -> pd.Series:
    """Column ``k`` as floats, NaN where empty."""
    found = pd.to_numeric(column.replace("", None), errors="coerce").astype("float64")
    bad = (found.isna() & ~(column.isna() | (column == ""))) | ~(found.isna() | ((found >= 1) & (found % 1 == 0)))
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(f"{path}: row {row + 1}: k is {column.iloc[row]}; give a whole number of at least 1")
    return found


def read_json_lines(path: Path) -> pd.DataFrame:
    """One object a line; blank lines are skipped."""
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
                if not isinstance(record, dict):
                    raise ValueError(f"line {number}: is no object")
                records.append(record)
    return pd.DataFrame.from_records(records)


def read_csv(path: Path) -> pd.DataFrame:
    """Text columns, ``history`` and ``exclude`` split at ``|``."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in ("history", "exclude"):
        if column in table:
            split = [[item for item in text.split(SEPARATOR) if item] for text in table[column]]
            table[column] = pd.Series(split, index=table.index, dtype=object)
    return table


def text_ids(path: Path, row: int, column: str, value: Any) -> list[str]:
    """The ids as text; an absent ``exclude`` is none."""
    if column == "exclude" and (value is None or value != value):
        return []
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InputError(f"{path}: row {row}: {column} is {value!r}; give a list of item ids")
    items = list(value)
    for item in items:
        if isinstance(item, bool) or not (isinstance(item, str) or hasattr(item, "__index__")):
            raise InputError(f"{path}: row {row}: {column} holds {item!r}; ids are text, or whole numbers")
    return [item if isinstance(item, str) else str(int(item)) for item in items]


def recommended_rows(table: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """One row a recommended item: the other columns of its history's row, then what was recommended.

    Args:
        table: N rows of `read_histories`.
        answers: N rows with lists ``items``, ``titles`` and ``scores``, and ``unknown_items`` and ``fallback``.

    Returns columns ``row`` (counted from 1), those of ``table`` beside ``history``, ``k`` and ``exclude``, then
    ``rank`` (from 1), ``item``, ``title``, ``score``, ``unknown_items`` and ``fallback``.
    """
    own = table.drop(columns=["history", "k", "exclude"], errors="ignore").reset_index(drop=True)
    own = own.drop(columns=[name for name in own if name in RECOMMENDED])
    own.insert(0, "row", range(1, len(own) + 1))
    lists = answers.rename(columns={"items": "item", "titles": "title", "scores": "score"}).reset_index(drop=True)
    lists.insert(0, "rank", [list(range(1, len(items) + 1)) for items in lists["item"]])
    return own.join(lists).explode(["rank", "item", "title", "score"], ignore_index=True).dropna(subset=["item"])


def write_recommendations(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows of `recommended_rows` in one of `FORMATS`; the file appears under its name when complete."""
    typed = rows.astype({"rank": "int64", "score": "float64"})
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".jsonl":
        typed.to_json(partial, orient="records", lines=True, force_ascii=False)
    elif path.suffix == ".parquet":
        typed.to_parquet(partial, index=False)
    else:
        typed.to_csv(partial, index=False)
    partial.replace(path)
