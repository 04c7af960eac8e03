"""Large files of interactions read part by part into numbers: users and items without a Python object a row.

This reads what `table_files.read_table` and `tables.interactions_of_tables` would read as the same numbers, and leaves
to them what they alone can read, or refuse with a line that says where: quotes, rows with too few fields, blank fields,
other encodings, types that are no ids. Parquet comes by row groups, text by blocks, both through Arrow.
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute as compute
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from recdistill.data.coded_column import CodedColumn, coded, coded_of_parts
from recdistill.data.columns import INTERACTION_COLUMNS, Headers, pick
from recdistill.data.samples import Int64Array
from recdistill.data.table_files import parquet_files, refuse_known_bytes
from recdistill.data.text_columns import text
from recdistill.data.text_files import Layout, is_gzipped, read_layout
from recdistill.data.timestamps import EXACT_FLOAT, moments_of_nanoseconds, moments_of_numbers, parse_timestamps
from recdistill.errors import InputError

BLOCK = 1 << 24  # bytes of text parsed at a time
ROWS = 1 << 20  # rows of Parquet taken at a time
#: Numbers that fit 64 bits, as Arrow and pandas read them alike.
WHOLE = r"^-?\d{1,18}$"
LONE_RETURN = re.compile(rb"\r(?!\n)")

Part = tuple[NDArray[np.integer], list[str]]
TextsOf = Callable[[pyarrow.Array], list[str]]


class OtherFormError(Exception):
    """The file is not written in a way that is read here."""


@dataclass(frozen=True, eq=False)
class StreamedColumns:
    """The columns of N interactions.

    Attributes:
        user, item: N each.
        timestamps: makes int64 [N]. Raises InputError as `timestamps.parse_timestamps`.
        used: the header of each column.
        form: what a line says of the file.
    """

    user: CodedColumn
    item: CodedColumn
    timestamps: Callable[[], Int64Array]
    used: dict[str, str]
    form: str

    def __len__(self) -> int:
        return len(self.user)


@dataclass
class Collected:
    """The parts of the columns that were read so far: dictionaries of users and items, timestamps as they stand."""

    user: list[pyarrow.DictionaryArray] = field(default_factory=list)
    item: list[pyarrow.DictionaryArray] = field(default_factory=list)
    timestamp: list[pyarrow.Array] = field(default_factory=list)


def streamed_columns(path: Path, headers: Headers) -> StreamedColumns | None:
    """Users, items and timestamps of a file, or folder of Parquet files; None where it is written in another form.

    Raises InputError where a column is missing, or the file is known to be neither text nor Parquet.
    """
    files = parquet_files(path)
    if files:
        return unless_other(lambda: of_parquet(path, files, headers))
    refuse_known_bytes(path)
    layout = read_layout(path, [name for column in INTERACTION_COLUMNS for name in (*headers.get(column, ()), column)])
    return streamed_text(path, layout, pick(layout.names, INTERACTION_COLUMNS, headers, str(path)))


def streamed_text(path: Path, layout: Layout, used: dict[str, str]) -> StreamedColumns | None:
    """The columns ``used`` of a text file of a known layout; None where it is written in another form."""
    if len(layout.separator) > 1 or layout.encoding != Layout.encoding:
        return None
    return unless_other(lambda: of_text(path, layout, used))


def columns_of_table(table: pd.DataFrame, place: str, used: dict[str, str], form: str) -> StreamedColumns:
    """The columns of a table of texts that was read at once."""
    timestamp = table["timestamp"]
    return StreamedColumns(
        coded(table["user"]), coded(table["item"]), lambda: parse_timestamps(place, timestamp), used, form
    )


def unless_other(read: Callable[[], StreamedColumns]) -> StreamedColumns | None:
    """What ``read`` gives; None where the file is written in another form. Raises InputError as it does."""
    try:
        return read()
    except (OtherFormError, pyarrow.ArrowException, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        return None
    finally:
        pyarrow.default_memory_pool().release_unused()


def of_parquet(path: Path, files: Sequence[Path], headers: Headers) -> StreamedColumns:
    """The columns of Parquet files, one after another. Raises OtherFormError."""
    found, used = Collected(), dict[str, str]()
    for file in files:
        folders = [part.partition("=")[0] for part in file.relative_to(path).parts[:-1] if "=" in part]
        with closing(parquet.ParquetFile(file)) as opened:
            names = opened.schema_arrow.names
            used = pick([*names, *folders], INTERACTION_COLUMNS, headers, str(file))
            if set(folders).intersection(used.values()) or len({*names}) < len(names) or shares_columns(used):
                raise OtherFormError(file)
            for batch in opened.iter_batches(ROWS, columns=list(used.values())):
                collect(found, {column: batch.column(batch.schema.names.index(name)) for column, name in used.items()})
    form = f"Parquet, {len(files)} files" if path.is_dir() else "Parquet"
    return joined(found, str(path), used, form, plain_texts)


def shares_columns(used: dict[str, str]) -> bool:
    """Whether one column of a file is to be read as two."""
    return len(set(used.values())) < len(used)


def of_text(path: Path, layout: Layout, used: dict[str, str]) -> StreamedColumns:
    """The columns of a text file. Raises OtherFormError."""
    if shares_columns(used):
        raise OtherFormError(path)
    found = Collected()
    as_written = arrow_csv.ConvertOptions(
        include_columns=list(used.values()),
        column_types=dict.fromkeys(layout.names, pyarrow.string()),
        strings_can_be_null=False,
    )
    read = arrow_csv.ReadOptions(column_names=layout.names, block_size=BLOCK)
    parse = arrow_csv.ParseOptions(delimiter=layout.separator, quote_char=False, escape_char=False)
    for block in plain_blocks(path, layout):
        table = arrow_csv.read_csv(pyarrow.BufferReader(block), read, parse, as_written)
        for batch in table.to_batches():
            collect(found, {column: batch.column(name) for column, name in used.items()})
    return joined(found, str(path), used, layout.form, stripped)


def valid_utf8(block: bytes) -> bool:
    """Whether bytes are a text."""
    try:
        pyarrow.array([block]).cast(pyarrow.string())
    except pyarrow.ArrowInvalid:
        return False
    return True


def plain_blocks(path: Path, layout: Layout) -> Iterator[bytes]:
    """The rows of a text file behind its header, in blocks of whole lines.

    Raises OtherFormError where it is no UTF-8, holds quotes that count, or ends lines in another way than LF and CRLF.
    """
    with gzip.open(path, "rb") if is_gzipped(path) else path.open("rb") as file:
        check_plain(b"".join(file.readline() for _ in range(layout.lines)), layout)
        rest = b""
        while block := file.read(BLOCK):
            end = block.rfind(b"\n") + 1
            whole, rest = (rest + block[:end], block[end:]) if end else (b"", rest + block)
            if whole.strip(b"\r\n"):
                check_plain(whole, layout)
                yield whole
        if rest:
            check_plain(rest, layout)
            yield rest


def check_plain(block: bytes, layout: Layout) -> None:
    """Raise OtherFormError where text holds what only the reader of all forms knows."""
    if b"\0" in block or (layout.quoted and b'"' in block) or LONE_RETURN.search(block) or not valid_utf8(block):
        raise OtherFormError("quotes, line ends or bytes")


def stripped(values: pyarrow.Array) -> list[str]:
    """Texts as the reader of text files has them."""
    return pd.Series(values.to_pylist(), dtype=str).str.strip().tolist()


def plain_texts(values: pyarrow.Array) -> list[str]:
    """Values as the reader of Parquet has them."""
    return list(map(text, values.to_pylist()))


def collect(found: Collected, batch: Mapping[str, pyarrow.Array]) -> None:
    """Add a batch of rows. Raises OtherFormError for missing values and types that are no ids."""
    for column, parts in (("user", found.user), ("item", found.item)):
        parts.append(part_of(batch[column]))
    timestamp = batch["timestamp"]
    if timestamp.null_count:
        raise OtherFormError("a timestamp is missing")
    if pyarrow.types.is_string(timestamp.type) or pyarrow.types.is_large_string(timestamp.type):
        whole = compute.match_substring_regex(timestamp, WHOLE)
        if compute.all(whole).as_py():
            timestamp = timestamp.cast(pyarrow.int64())
    found.timestamp.append(timestamp)


def part_of(column: pyarrow.Array) -> pyarrow.DictionaryArray:
    """A column of ids as numbers of its distinct values, which are in the order of their first rows."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    types = pyarrow.types
    if column.null_count or not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
        raise OtherFormError(f"{kind} or missing values")
    return column.dictionary_encode()


def coded_texts(parts: list[pyarrow.DictionaryArray], texts_of: TextsOf) -> CodedColumn:
    """One column of the parts. Each distinct value becomes a text once for all parts of a type."""
    found: list[Part] = []
    for _, of_type in itertools.groupby(parts, key=lambda part: part.type):
        same = pyarrow.chunked_array(list(of_type)).unify_dictionaries()
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in same.chunks])
        found.append((codes, texts_of(same.chunk(0).dictionary)))
    return coded_of_parts(found)


def joined(found: Collected, place: str, used: dict[str, str], form: str, texts_of: TextsOf) -> StreamedColumns:
    """The whole columns. Raises OtherFormError where there is no row, or one of a text with a blank id."""
    if not found.user:
        raise OtherFormError("no rows")
    user, item = coded_texts(found.user, texts_of), coded_texts(found.item, texts_of)
    if any("" in column.texts for column in (user, item)):
        raise OtherFormError("a blank field")
    return StreamedColumns(user, item, timestamps_of(place, found.timestamp), used, form)


def timestamps_of(place: str, parts: list[pyarrow.Array]) -> Callable[[], Int64Array]:
    """What makes the timestamps of all parts, int64 [N]. Raises OtherFormError for types that are none."""
    types = {part.type for part in parts}
    if all(pyarrow.types.is_integer(one) and one != pyarrow.uint64() for one in types):
        whole = np.concatenate([part.to_numpy() for part in parts], dtype=np.int64)
        return lambda: moments_of_numbers(place, whole)
    if all(map(pyarrow.types.is_floating, types)):
        numbers = np.concatenate([part.to_numpy() for part in parts], dtype=np.float64)
        if not np.all((np.abs(numbers) < EXACT_FLOAT) & (np.trunc(numbers) == numbers)):
            raise OtherFormError("fractions")
        exact = numbers.astype(np.int64)
        return lambda: moments_of_numbers(place, exact)
    if all(map(pyarrow.types.is_timestamp, types)):
        fine = [part.cast(pyarrow.timestamp("ns", tz=part.type.tz)).cast(pyarrow.int64()) for part in parts]
        nanoseconds = moments_of_nanoseconds(np.concatenate([part.to_numpy() for part in fine]))
        if nanoseconds is None:
            raise OtherFormError("dates at the border of what nanoseconds can tell")
        return lambda: nanoseconds
    texts = [part.cast(pyarrow.string()) if pyarrow.types.is_integer(part.type) else part for part in parts]
    if not all(pyarrow.types.is_string(part.type) for part in texts):
        raise OtherFormError("other types of timestamps")
    column = pd.Series(pyarrow.chunked_array(texts), dtype=str).str.strip()
    return lambda: parse_timestamps(place, column)
