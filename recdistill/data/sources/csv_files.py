"""``dataset=csv``: a person's own interactions and items, a CSV file each."""

import csv
import gzip
import io
import warnings
import zlib
from pathlib import Path
from typing import TextIO

import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.tables import INTERACTION_COLUMNS, ITEM_COLUMNS, interactions_of_tables
from recdistill.errors import InputError, one_line
from recdistill.registry import SOURCES


@SOURCES.register("csv")
def csv_files(config: DataConfig) -> Interactions:
    """Read the files ``interactions`` (columns user, item, timestamp) and ``items`` (item, title).

    Columns stand in any order, others are ignored; files may be gzipped. Ids are text: '007' stays '007'.
    Timestamps are whole numbers or ISO dates. Raises InputError naming file, row (counted from the first row after
    the header) and what to do.
    """
    items_path = existing_file("items", config.items)
    items = read_columns(items_path, ITEM_COLUMNS)
    path = existing_file("interactions", config.interactions)
    return interactions_of_tables(read_columns(path, INTERACTION_COLUMNS), str(path), items, str(items_path))


def existing_file(option: str, name: str) -> Path:
    """The path given as ``option``. Raises InputError where it is empty or no file."""
    if not name:
        raise InputError(f"{option}=: dataset=csv needs a CSV file; set {option}=<file>")
    path = Path(name).expanduser()
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{option}={name}: {kind}; give the path of a CSV file")
    return path


def read_columns(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """The named columns as text, white space around each field removed. Raises InputError, one line."""
    try:
        with open_text(path) as file:
            header = read_header(path, file, columns)
        with open_text(path) as file, warnings.catch_warnings():
            # pandas only warns where every row has more fields than the header, and drops some.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                file,
                names=header,
                header=0,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
            )
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check the file") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        raise InputError(f"{path}: {one_line(error)}; quote fields that hold commas") from None
    if table.empty:
        raise InputError(f"{path}: has a header and no rows; give at least one row")
    return table[list(columns)].fillna("").apply(lambda column: column.str.strip())


def open_text(path: Path) -> TextIO:
    """Open a file as UTF-8 text: a byte order mark is skipped, and a gzipped file is unpacked whatever its name."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    if gzipped:
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def read_header(path: Path, file: TextIO, columns: tuple[str, ...]) -> list[str]:
    """Column names. Raises InputError for an empty file, a repeated name or a missing column."""
    header = [name.strip() for name in next((row for row in csv.reader(file) if any(row)), [])]
    if not header:
        raise InputError(f"{path}: is empty; its first line must be {','.join(columns)}")
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise InputError(f"{path}: column {repeated[0]!r} stands twice in the header; rename one")
    missing = [name for name in columns if name not in header]
    if missing:
        found = one_line(", ".join(header))
        raise InputError(
            f"{path}: has no column {missing[0]!r}, found {found}; the header must name {', '.join(columns)}"
        )
    # Blank names are columns that nobody asks for; pandas wants them distinct.
    return [name or f"(blank {position})" for position, name in enumerate(header)]
