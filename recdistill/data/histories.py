"""A file of histories to recommend for, and the file of recommendations made from it."""

import csv
import difflib
import io
import json
import re
import zlib
from ast import literal_eval
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet

from recdistill.data.plain_values import cell, encodable, plain_column
from recdistill.data.text_columns import text as text_of_value
from recdistill.data.text_files import BLANK, numbered_rows, open_text, read_layout, read_whole, refuse_rows
from recdistill.data.timestamps import EXACT_FLOAT
from recdistill.errors import InputError, one_line
from recdistill.whole_files import whole_file

RECOMMENDED = ("row", "rank", "item", "title", "score", "unknown_items", "fallback")
MOST_COMPARED = 5_000  # ids of the model that a mistaken one is compared with
OWN = "own_"  # what a column of the file that is called like one of these begins with in the output
FORMATS = (".jsonl", ".parquet", ".csv")
READ = (*FORMATS, ".tsv")
ZIPPED = ".gz"
LISTS = ("history", "exclude", "allowed_items")
#: Lists that a row need not have, and what it then has: nothing left out, and all items allowed.
ABSENT: dict[str, list[str] | None] = {"exclude": [], "allowed_items": None}
SEPARATORS = ("|", ",")  # between the ids of a history in a CSV file; the first that any row has
TOKEN = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\]]+"""
PYTHON_LIST = re.compile(rf"\[\s*(?:(?:{TOKEN})\s*(?:,\s*(?:{TOKEN})\s*)*)?,?\s*\]")


def read_histories(file: str) -> pd.DataFrame:
    """Read rows with a column ``history`` of lists of item ids, oldest first; all other columns as they are.

    In ``.jsonl`` a line is an object, in ``.parquet`` the column holds lists, and in ``.csv`` and ``.tsv`` (the header
    tells what separates fields) it holds lists as JSON or Python write them, or ids separated by ``|``, or by commas
    where no row has a ``|``; as do the optional lists ``exclude``. The texts may be gzipped, with another ``.gz`` or
    without. Ids are text without white space around it, as in training; whole numbers become text. A column of values
    of several types becomes text. So may lists ``allowed_items`` of the only items to recommend; a row without one
    allows all.

    A column ``k``, where there is one, holds numbers of at least 1, or nothing.

    Raises InputError, naming the file, for any other file, and for a row (counted from 1) that is not like that.
    """
    path = Path(file).expanduser()
    suffix = Path(path.name.removesuffix(ZIPPED)).suffix
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".jsonl": read_json_lines,
        ".parquet": read_parquet,
        ".csv": read_csv,
        ".tsv": read_csv,
    }
    if suffix not in readers:
        raise InputError(f"histories={file}: must end in {', '.join(READ)}, gzipped or not")
    if not path.is_file():
        raise InputError(f"histories={file}: there is no such file")
    try:
        table = readers[suffix](path)
    except InputError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None
    if "history" not in table:
        raise InputError(f"{path}: has no column history; it has {', '.join(map(str, table.columns)) or 'none'}")
    if not len(table):
        raise InputError(f"{path}: holds no row")
    for column in LISTS:
        if column in table:
            lists = [text_ids(f"{path}: row {row}", column, value) for row, value in enumerate(table[column], 1)]
            table[column] = pd.Series(lists, index=table.index, dtype=object)
    if "k" in table:
        table["k"] = numbers(path, table["k"])
    for column in table.columns.difference([*LISTS, "k"]):
        table[column] = one_type(table[column])
    return table


def numbers(path: Path, column: pd.Series) -> pd.Series:
    """Column ``k`` as floats, NaN where empty."""
    found, bad = how_many(column)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(f"{path}: row {row + 1}: {bad_k(column.iloc[row])}")
    return found


def how_many(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The values of a column ``k`` as floats, NaN where empty; and which of them are no whole number of at least 1."""
    found = pd.to_numeric(column.replace("", None), errors="coerce").astype("float64")
    bad = found.isna() & ~(column.isna() | (column == ""))
    return found, bad | ~(found.isna() | ((found >= 1) & (found % 1 == 0) & (found < EXACT_FLOAT)))


def bad_k(value: Any) -> str:
    """What is said of a value of ``k`` that `how_many` finds bad."""
    return f"k is {value}; give a whole number of at least 1"


def read_json_lines(path: Path) -> pd.DataFrame:
    """One object a line; blank lines are skipped. Values keep the type that they have in the file."""
    records = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"line {number}: {error}") from None
                if not isinstance(record, dict):
                    raise ValueError(f"line {number}: is no object")
                records.append(record)
    names = dict.fromkeys(name for record in records for name in record)
    # Columns of objects: pandas would make floats of whole numbers beside missing values.
    return pd.DataFrame(
        {encodable(name): pd.Series([record.get(name) for record in records], dtype=object) for name in names}
    )


def read_parquet(path: Path) -> pd.DataFrame:
    """All columns of a Parquet file; a named index is a column too."""
    table = parquet.ParquetFile(path).read().to_pandas(integer_object_nulls=True)
    named = any(name is not None for name in table.index.names)
    return table.reset_index(drop=not named).rename(columns=str)


def read_csv(path: Path) -> pd.DataFrame:
    """Text columns, ``history`` and ``exclude`` as lists; the column of an index, which has no name, is left out."""
    layout = read_layout(path, LISTS)
    if len(layout.names) == 1:
        # Then a comma is no new field, quoted or not.
        rows = [layout.separator.join(row) for _, row in numbered_rows(path, layout) if row]
        table = pd.DataFrame({layout.names[0]: pd.Series(rows, dtype=object)})
    else:
        table = read_whole(path, layout)
        table = table.drop(columns=[name for name in table if str(name).startswith(BLANK)])
    for column in LISTS:
        if column in table:
            cells = [text.strip() for text in table[column]]
            separator = next((one for one in SEPARATORS if any(one in text for text in cells)), SEPARATORS[0])
            lists = [ids_of_cell(text, separator) for text in cells]
            if any("\n" in item or "\r" in item for items in lists if items for item in items if isinstance(item, str)):
                refuse_rows(path, layout, {column: column})
            wrong = next((row for row, items in enumerate(lists) if items is None), None)
            if wrong is not None:
                raise InputError(
                    f"{path}: row {wrong + 1}: {column} is {one_line(cells[wrong], 60)!r}; write a list as JSON does"
                )
            if column == "allowed_items":
                lists = [items if text else None for items, text in zip(lists, cells, strict=True)]
            table[column] = pd.Series(lists, index=table.index, dtype=object)
    return table


def ids_of_cell(text: str, separator: str) -> list[Any] | None:
    """The ids of a history in a CSV file: a list as JSON or Python write it, or ids between separators.

    None where it looks like a list of texts and is none.

    >>> ids_of_cell('["a", 7]', "|"), ids_of_cell("['a']", "|"), ids_of_cell("a, 7", ",")
    (['a', 7], ['a'], ['a', '7'])
    """
    if text.startswith("[") and text.endswith("]"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return found
        if PYTHON_LIST.fullmatch(text):
            tokens = re.findall(TOKEN, text[1:-1])
            try:
                return [str(literal_eval(token)) if token[0] in "'\"" else token for token in tokens]
            except (SyntaxError, ValueError):  # a line break or a zero byte in a text of Python
                return None
        if text[1:2] in ("'", '"'):
            return None
    return [item.strip() for item in text.split(separator) if item.strip()]


def text_ids(place: str, column: str, value: Any) -> list[str] | None:
    """The ids as `text_columns.text` has them; of an absent list what `ABSENT` has.

    Args:
        place: of the row, for messages.
        column: one of `LISTS`.
        value: its value in the row.

    Raises InputError, in one line, for no list and for values in it that are no ids.
    """
    if column in ABSENT and not hasattr(value, "__iter__") and pd.isna(value):
        return ABSENT[column]
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        raise InputError(f"{place}: {column} is {one_line(repr(value), 60)}; give a list of item ids")
    items = list(value)
    for item in items:
        whole = isinstance(item, float | np.floating) and item % 1 == 0 and abs(float(item)) < EXACT_FLOAT
        is_id = isinstance(item, str | bytes) or hasattr(item, "__index__") or whole
        if isinstance(item, bool | np.bool_ | np.ndarray) or not is_id:
            raise InputError(f"{place}: {column} holds {one_line(repr(item), 60)}; ids are text, or whole numbers")
    try:
        return [text_of_value(item) for item in items]
    except UnicodeDecodeError:
        raise InputError(f"{place}: {column} holds bytes that are no UTF-8 text; write text or whole numbers") from None


def one_type(column: pd.Series) -> pd.Series:
    """A column of a person's own as it is where Parquet can hold it; else each value as text, a list as JSON."""
    if column.dtype != object:
        return column
    present = column.dropna()
    values: list[Any] = list(present)
    kinds = {type(value) for value in values}
    if kinds == {int} and max(map(abs, values)) <= np.iinfo(np.int64).max:
        return column.astype("Int64" if len(present) < len(column) else "int64")
    if kinds == {int, float} and max(map(abs, values)) < EXACT_FLOAT:
        return column.astype("float64")
    try:
        if len(kinds) <= 1:
            parquet.write_table(pyarrow.table({"column": pyarrow.array(column, from_pandas=True)}), io.BytesIO())
            return column
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        pass
    texts = [value if isinstance(value, str) else json.dumps(value, default=str) for value in values]
    return pd.Series(list(map(encodable, texts)), index=present.index, dtype=object).reindex(column.index)


def refuse_unknown_items(file: str, table: pd.DataFrame, unknown_items: pd.Series, item_ids: Sequence[str]) -> None:
    """Raise InputError where the file has ids, and the model knows none of them.

    Args:
        file: the file, for the message.
        table: N rows of `read_histories`.
        unknown_items: of each row, how many ids of its history the model does not know.
        item_ids: some of those that it knows.
    """
    given = sum(len(history) for history in table["history"])
    if not given or int(unknown_items.sum()) < given:
        return
    row, example = next((row, history[0]) for row, history in enumerate(table["history"], 1) if history)
    raise none_known(file, given, f"row {row}", example, item_ids)


def none_known(file: str, given: int, place: str, example: str, item_ids: Sequence[str]) -> InputError:
    """The error where a model knows none of a file's ``given`` ids.

    Args:
        file: the file, for the message.
        given: how many ids it has.
        place: of a history in it.
        example: the first id of that history.
        item_ids: some of those that the model knows.
    """
    near = difflib.get_close_matches(example, item_ids[:MOST_COMPARED], n=1, cutoff=0.0)
    hint = f", which has ids as {near[0]!r}" if near else ""
    return InputError(
        f"histories={file}: none of its {given:,} item ids is known to the model{hint}; {place} begins with "
        f"{example!r}: write ids as the data's source does, or choose the model of these items"
    )


def recommended_rows(table: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """One row a recommended item: the other columns of its history's row, then what was recommended.

    Args:
        table: N rows of `read_histories`.
        answers: N rows with lists ``items``, ``titles`` and ``scores``, and ``unknown_items`` and ``fallback``.

    Returns columns ``row`` (counted from 1), those of ``table`` beside ``history``, ``k`` and ``exclude``, then
    ``rank`` (from 1), ``item``, ``title``, ``score``, ``unknown_items`` and ``fallback``. A column of ``table`` that is
    called like one of these is called ``own_item`` and so on.
    """
    own = table.drop(columns=[*LISTS, "k"], errors="ignore").reset_index(drop=True)
    names = set(own.columns)
    for name in RECOMMENDED:
        other = name
        while other in names or other == name:
            other = OWN + other
        own = own.rename(columns={name: other})
    own.insert(0, "row", range(1, len(own) + 1))
    lists = answers.rename(columns={"items": "item", "titles": "title", "scores": "score"}).reset_index(drop=True)
    lists.insert(0, "rank", [list(range(1, len(items) + 1)) for items in lists["item"]])
    return own.join(lists).explode(["rank", "item", "title", "score"], ignore_index=True).dropna(subset=["item"])


def write_recommendations(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows of `recommended_rows` in one of `FORMATS`; the file appears under its name when complete.

    Parquet keeps the values of the user's own columns, text has them as `plain_values` says. Raises InputError, before
    anything is written, for a column that text cannot hold.
    """
    typed = rows.astype({"rank": "int64", "score": "float64"})
    if path.suffix == ".parquet":
        with whole_file(path) as place:
            typed.to_parquet(place, index=False)
        return
    columns = {str(name): plain_column(column, f"output={path}") for name, column in typed.items()}
    with whole_file(path) as place:
        if path.suffix == ".jsonl":
            write_json_lines(place, columns)
        else:
            write_csv(place, columns)


def write_json_lines(place: Path, columns: dict[str, list[Any]]) -> None:
    """A line an object."""
    with place.open("w", encoding="utf-8", newline="\n") as file:
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(place: Path, columns: dict[str, list[Any]]) -> None:
    """A header and a line a row, unless fields hold line breaks; lists are JSON."""
    cells = pd.DataFrame({name: pd.Series(map(cell, values), dtype=object) for name, values in columns.items()})
    # The writer quotes a field for "\n" alone, and readers take "\r" for the end of a line too.
    quoted = any(isinstance(one, str) and "\r" in one for values in columns.values() for one in values)
    cells.to_csv(place, index=False, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
