"""Text files of fields between separators: CSV and its like, gzipped or not."""

import csv
import gzip
import io
import itertools
import re
import sys
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
import pandas as pd

from recdistill.data.notices import notice
from recdistill.errors import InputError, one_line

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", "::": "double colons"}
IN_HEADERS = (",", "\t", ";", "|")  # those that are told apart by a header
#: Excel's own first line, which names the separator.
SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\r|\n")
#: No text but separators, empty quotes and white space of any kind.
BLANK_LINE = re.compile(r"[\s\"|;,]*")
HEADER_LINES = 50  # lines that a header with line breaks in its names may take
BLANK = "(blank "  # a name in the place of none
UNIT_SEPARATOR = "\x1f"
#: A number or a date, as a timestamp begins.
MOMENT = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?|\d{4}[-/]?\d\d[-/]?\d\d([T ].*)?")


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        names: of its columns, each once.
        separator: one of `SEPARATORS`.
        lines: that come before the first row: blank ones and the header.
        quoted: whether fields may stand in quotation marks.
        encoding: of the file.
    """

    names: list[str]
    separator: str
    lines: int
    quoted: bool = True
    encoding: str = "utf-8-sig"

    @property
    def quoting(self) -> Literal[0, 3]:
        """The same as the readers of CSV call it."""
        return csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE

    @property
    def form(self) -> str:
        """What a line says of the file."""
        return f"text, separated by {SEPARATORS[self.separator]}"


def is_gzipped(path: Path) -> bool:
    """Whether a file is gzipped, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_text(path: Path, encoding: str = "utf-8-sig") -> TextIO:
    """Open a file as text, line ends as they are: a byte order mark is skipped, and a gzipped file is unpacked."""
    if is_gzipped(path):
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong in reading a text file, as InputError with one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check the file") from None


def read_layout(path: Path, columns: Collection[str], quoted: bool = True) -> Layout:
    """Find the header, behind lines without text, and by it the separator.

    Args:
        path: a text file with a header.
        columns: names of which the header holds the most where it is read with the right separator.
        quoted: whether fields may stand in quotation marks.

    Raises:
        InputError: the file is empty or no UTF-8, or a name stands twice in the header.
    """
    with readable(path), open_text(path) as file:
        before, told, first = 0, "", ""
        for line in file:
            excel = SEPARATOR_LINE.fullmatch(line)
            if excel is not None:
                told = excel[1]
            elif not BLANK_LINE.fullmatch(line):
                first = line
                break
            before += 1
        if not first:
            raise InputError(f"{path}: is empty; its first line must be {','.join(columns) or 'a header'}")
        # A name may hold a line break, though hardly any does.
        more = list(itertools.islice(file, HEADER_LINES)) if quoted and first.count('"') % 2 else []
    candidates = [read_names([first, *more], one, quoted) for one in ([told] if told in SEPARATORS else IN_HEADERS)]
    names, separator, lines = max(candidates, key=lambda one: (len({*columns} & {*one[0]}), len(one[0])))
    repeated = [name for name in names if name and names.count(name) > 1]
    if repeated:
        raise InputError(f"{path}: column {repeated[0]!r} stands twice in the header; rename one")
    # Blank names are columns that nobody asks for; pandas wants them distinct.
    names = [name or f"{BLANK}{position})" for position, name in enumerate(names)]
    return Layout(names, separator, before + lines, quoted)


def read_names(lines: list[str], separator: str, quoted: bool) -> tuple[list[str], str, int]:
    """The names of a header, the separator they were read with, and the number of its lines."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, skipinitialspace=True)
    return [name.strip() for name in next(reader)], separator, reader.line_num


def read_fields(path: Path, layout: Layout, used: Mapping[str, str], further: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of a file as text, white space around each field removed; rows without any text are left out.

    Args:
        path: the file.
        layout: of `read_layout`, or known.
        used: names in the file, by what they are called in the frame that is returned.
        further: names of columns that are returned as they are called; their fields may hold line breaks.

    Raises:
        InputError: a row has too many fields, a quote does not close on its line, or there is no row. One line.
    """
    table = read_whole(path, layout, used)
    called = [*used.items(), *((name, name) for name in further)]
    found = pd.DataFrame({column: table[name].str.strip() for column, name in called})
    if layout.quoted:
        broken = [name for name in layout.names if table[name].str.contains(r"[\r\n]").any()]
        if any(found[column].str.contains(r"[\r\n]").any() for column, name in used.items() if name in broken):
            refuse_rows(path, layout, used)
        check_other_columns(path, layout, used, table[[name for name in broken if name not in used.values()]])
    found = without_blank_rows(found, table)
    if found.empty:
        raise InputError(f"{path}: has a header and no rows; give at least one row")
    return found


def read_whole(path: Path, layout: Layout, used: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Every column of a file as text, as it stands there. Raises InputError as `read_fields`."""
    try:
        with readable(path), opened(path, layout) as file, warnings.catch_warnings():
            # pandas only warns where every row has more fields than the header, and drops some.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            separator, text = layout.separator, file
            if len(separator) > 1:
                # The parser in C knows separators of one character alone.
                separator, text = UNIT_SEPARATOR, io.StringIO(file.read().replace(layout.separator, UNIT_SEPARATOR))
            return pd.read_csv(
                text,
                sep=separator,
                names=layout.names,
                header=None,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
                quoting=layout.quoting,
            ).fillna("")
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        refuse_rows(path, layout, used or {}, is_open="EOF inside string" in str(error))
        raise InputError(f"{path}: {one_line(error)}; check the file") from None


def opened(path: Path, layout: Layout) -> TextIO:
    """A file opened at its first row."""
    file = open_text(path, layout.encoding)
    for _ in range(layout.lines):
        file.readline()
    return file


def without_blank_rows(found: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``found`` but those where every field of ``table`` is blank."""
    blank = (found == "").all(axis=1).to_numpy(copy=True)
    rows = np.flatnonzero(blank)
    if not len(rows):
        return found
    blank[rows] = [not any(field.strip() for field in row) for row in table.iloc[rows].itertuples(index=False)]
    return found[~blank].reset_index(drop=True)


def numbered_rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Each row and the line that it begins on, counted from 1. Raises InputError."""
    limit = csv.field_size_limit(sys.maxsize)  # an open quote may have swallowed most of the file
    line = layout.lines + 1
    try:
        with opened(path, layout) as file:
            if len(layout.separator) > 1:
                yield from enumerate((text.rstrip("\r\n").split(layout.separator) for text in file), line)
                return
            reader = csv.reader(file, delimiter=layout.separator, quoting=layout.quoting, skipinitialspace=True)
            for row in reader:
                yield line, row
                line = layout.lines + reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {line}: {one_line(error)}; check the file") from None
    finally:
        csv.field_size_limit(limit)


def refuse_rows(path: Path, layout: Layout, used: Mapping[str, str], is_open: bool = False) -> None:
    """Raise InputError at the first row whose quote does not close on its line, or that has too many fields.

    Args:
        path, layout, used: of `read_fields`.
        is_open: the file ends inside a quote.
    """
    named = [position for position, name in enumerate(layout.names) if name in used.values()]
    line, row = layout.lines, [""]
    for line, row in numbered_rows(path, layout):
        for position in named:
            if position < len(row) and LINE_END.search(row[position].strip()):
                refuse_quote(path, layout, line, row, position)
        if len(row) > len(layout.names):
            broken = [position for position, field in enumerate(row) if LINE_END.search(field)]
            if broken:
                refuse_quote(path, layout, line, row, next((one for one in broken if one in named), broken[0]))
            advice = "quote fields that hold" if layout.quoted else "fields must hold no"
            raise InputError(
                f"{path}: line {line} has {len(row)} fields, the header {len(layout.names)}; "
                f"{advice} {SEPARATORS[layout.separator]}"
            )
    if is_open:
        refuse_quote(path, layout, line, row, len(row) - 1)


def refuse_quote(path: Path, layout: Layout, line: int, row: list[str], position: int) -> None:
    """Raise InputError for a field that opens a quote, with the line where it does."""
    opens = line + sum(len(LINE_END.findall(field)) for field in row[:position])
    held = len(LINE_END.findall(row[position]))
    name = layout.names[position] if position < len(layout.names) else f"field {position + 1}"
    raise InputError(
        f"{path}: line {opens}: {name} opens a quote that does not close there but takes {held} more lines; "
        'close it, and write "" for a quote inside a quoted field'
    )


def check_other_columns(path: Path, layout: Layout, used: Mapping[str, str], table: pd.DataFrame) -> None:
    """Look for rows inside quoted fields of columns that are not read, which may hold line breaks.

    Raises InputError where they look like interactions, and says a line where they look like other rows.
    """
    least = 1 + max(layout.names.index(name) for name in used.values())
    timestamp = layout.names.index(used["timestamp"]) if "timestamp" in used else None
    for name, column in table.items():
        position = layout.names.index(str(name))
        for text in column[column.str.contains(r"[\r\n]")]:
            inside = rows_inside(text, layout, position)
            if timestamp is None:
                whole = [row for row in inside[1:] if all(row[:least])]
                if whole:
                    notice(
                        f"{path}: warning: {name} holds lines that look like rows, as {whole[0][:least]}; is a quote "
                        "left open?"
                    )
                    return
                continue
            moments = [row[timestamp].strip() for row in inside if row[timestamp]]
            if moments and all(map(MOMENT.fullmatch, moments)):
                for line, row in numbered_rows(path, layout):
                    if row[position : position + 1] == [text]:
                        refuse_quote(path, layout, line, row, position)


def rows_inside(text: str, layout: Layout, position: int) -> list[list[str]]:
    """The rows that a field with line breaks is made of, if a quote was left open in it; what they lack is blank.

    None where its lines have other numbers of fields than that. The first is the end of the field's own row, the last
    may be the begin of one.

    >>> rows_inside("x,1,5\\nb,y,2,6\\nc,z", Layout(["user", "note", "item", "timestamp"], ",", 1), 1)
    [['', '', '1', '5'], ['b', 'y', '2', '6'], ['c', 'z', '', '']]
    """
    first, *middle, last = [line.split(layout.separator) for line in LINE_END.split(text)]
    count = len(layout.names)
    behind = count - 1 - position
    if len(first) <= behind or any(len(row) != count for row in middle) or len(last) > count:
        return []
    return [[""] * (position + 1) + first[len(first) - behind :], *middle, last + [""] * (count - len(last))]
