"""Files of items that a finished student is to learn of: ids, titles and what their texts are made of, or vectors."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from recdistill.data.columns import ITEM_COLUMNS, headers_of, refuse_unused
from recdistill.data.table_files import read_table
from recdistill.data.tables import check_items, titles_of
from recdistill.data.text_columns import text_of
from recdistill.errors import InputError, one_line


def read_new_items(items: str, columns: str, known: Collection[str], text_columns: Sequence[str]) -> pd.DataFrame:
    """Items that are not known yet: columns ``item``, ``title`` (the id where blank) and ``text_columns``, as text.

    Args:
        items: text with a header, gzipped or not, or Parquet, as the items file of ``dataset=csv``.
        columns: of `headers_of`.
        known: ids of the items that are there already.
        text_columns: further columns that texts are made of; a blank field is fine.

    Raises:
        InputError: the file or a column is missing, an id is blank, stands twice or is known.
    """
    path = Path(items).expanduser()
    if not items or not path.exists():
        raise InputError(f"items={items}: no such file; give the file of the new items")
    headers = headers_of(columns)
    table, used = read_table(path, ITEM_COLUMNS, headers, further=True)
    refuse_unused(columns, headers, used)
    check_items(table, str(path))
    old = np.flatnonzero(table["item"].isin(set(known)))
    if len(old):
        raise InputError(
            f"items={items}: row {old[0] + 1}: item {table['item'].iloc[old[0]]!r} is known (in {len(old)} rows) "
            "already; leave it out"
        )
    for name in text_columns:
        if name not in table:
            raise InputError(
                f"items={items}: has no column {name!r}, which items' texts are made of; add it, blank where unknown"
            )
    table["title"] = titles_of(table, str(path), 0, "id")
    return table[[*ITEM_COLUMNS, *text_columns]]


def read_item_vectors(vectors: str, items: Sequence[str], size: int) -> NDArray[np.float32]:
    """Vectors [n, size] of items, in the order of ``items``; rows of others are not read.

    Args:
        vectors: Parquet file with columns ``item`` and ``vector``, a list of numbers.
        items: n ids.
        size: numbers a vector.

    Raises:
        InputError: the file or a row is missing, stands twice, or is no list of so many finite numbers.
    """
    try:
        opened = parquet.ParquetFile(Path(vectors).expanduser()).read(columns=["item", "vector"])
        table = opened.to_pandas(integer_object_nulls=True)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"vectors={vectors}: cannot be read as Parquet ({one_line(error)})") from None
    if list(table.columns) != ["item", "vector"]:
        raise InputError(f"vectors={vectors}: must have columns item and vector; it has {', '.join(table.columns)}")
    table = table.reset_index(drop=True)
    table["item"] = text_of(table["item"], "item", f"vectors={vectors}")
    check_items(table, vectors)
    by_item = dict(zip(table["item"], table["vector"], strict=True))
    found = np.empty((len(items), size), dtype=np.float32)
    for row, item in enumerate(items):
        if item not in by_item:
            raise InputError(f"vectors={vectors}: has no row of item {item!r}; give every new item one")
        try:
            found[row] = np.asarray(by_item[item], dtype=np.float32)
        except (ValueError, TypeError):
            raise InputError(f"vectors={vectors}: item {item!r}: is no list of {size} numbers") from None
        if np.shape(by_item[item]) != (size,) or not np.isfinite(found[row]).all():
            raise InputError(f"vectors={vectors}: item {item!r}: is no list of {size} finite numbers")
    return found
