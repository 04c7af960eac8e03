"""A person's files of interactions and items: text or Parquet, told apart by their content."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow.parquet as parquet

from recdistill.config.table_folders import PARQUET_SUFFIXES, files_inside
from recdistill.data.columns import Headers, pick
from recdistill.data.item_columns import further_columns, plain_texts, without_point_zero
from recdistill.data.notices import notice
from recdistill.data.text_columns import text_of
from recdistill.data.text_files import is_gzipped, read_fields, read_layout
from recdistill.errors import InputError, one_line

#: The folder of the rows that have no value in a column, as Hive, Spark and Arrow name it.
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
KNOWN_BYTES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"\xfd7zX": "an xz archive"}
KNOWN_BYTES |= {
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
}


def existing_file(option: str, name: str, dataset: str = "csv", *, folders: bool = False) -> Path:
    """The path given as ``option``. Raises InputError where it is empty or no file.

    Args:
        option: name of the option, for messages.
        name: the path.
        dataset: the source, for messages.
        folders: whether it may be a folder.
    """
    if not name:
        raise InputError(f"{option}=: dataset={dataset} needs a file; set {option}=<file>")
    path = Path(name).expanduser()
    if not path.exists():
        raise InputError(f"{option}={name}: no such file; give the path of a file")
    if path.is_dir() and not folders:
        raise InputError(f"{option}={name}: is a folder; give the path of a file")
    return path


def read_table(
    path: Path, columns: Collection[str], headers: Headers, further: bool = False
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Columns as text, white space around each field removed, and the header that each has in the file.

    A line says what was taken.

    Args:
        path: a text file with a header, gzipped or not; a Parquet file; or a folder of these.
        columns: that are read.
        headers: what they are called in the file, where that differs.
        further: whether all other columns that hold text or numbers are read, too, under the names that they have.

    Raises:
        InputError: the file cannot be read, or lacks a column. One line.
    """
    files = parquet_files(path)
    if files:
        found, used = read_parquet(path, files, columns, headers, further)
        form = f"Parquet, {len(files)} files" if path.is_dir() else "Parquet"
    else:
        refuse_known_bytes(path)
        layout = read_layout(path, [name for column in columns for name in (*headers.get(column, ()), column)])
        used = pick(layout.names, columns, headers, str(path))
        others = further_columns(layout.names, used.values()) if further else []
        found, form = read_fields(path, layout, used, others), layout.form
        for name in others:
            found[name] = without_point_zero(found[name].tolist())
    say_taken(path, form, used, len(found), [str(name) for name in found.columns if name not in used])
    return found, used


def say_taken(path: Path, form: str, used: Mapping[str, str], rows: int, further: Sequence[str] = ()) -> None:
    """Say what was taken of a file."""
    zipped = "gzipped " if path.is_file() and is_gzipped(path) else ""
    named = ", ".join(column if column == header else f"{column} from {header}" for column, header in used.items())
    more = f"; further columns {', '.join(further)}" if further else ""
    notice(f"read {path} ({zipped}{form}): {named}{more}; {rows:,} rows")


def refuse_known_bytes(path: Path) -> None:
    """Raise InputError for a file that is known to be no text by its first bytes."""
    with path.open("rb") as file:
        first = file.read(4)
    for begin, kind in KNOWN_BYTES.items():
        if first.startswith(begin):
            raise InputError(f"{path}: is {kind}; give text (gzipped or not) or Parquet")


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files that a path stands for, in the order of their names; none where it is a text file.

    Raises InputError for a folder without any.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return [path] if file.read(4) == b"PAR1" else []
    found = sorted(files_inside(path))
    if not found:
        raise InputError(f"{path}: is a folder without Parquet files ({', '.join(PARQUET_SUFFIXES)}); give a file")
    return found


def read_parquet(
    path: Path, files: list[Path], columns: Collection[str], headers: Headers, further: bool = False
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Columns of Parquet files as text, one file after another; a folder ``name=value`` is a column, as Hive has it.

    A value that is missing is blank, in a file and in the name of a folder.
    """
    parts, used = [], dict[str, str]()
    for file in files:
        folders = dict(part.split("=", 1) for part in file.relative_to(path).parts[:-1] if "=" in part)
        try:
            opened = parquet.ParquetFile(file)
            names = [*opened.schema_arrow.names, *folders]
            used = pick(names, columns, headers, str(file))
            others = further_columns(names, used.values()) if further else []
            wanted = [name for name in dict.fromkeys([*used.values(), *others]) if name not in folders]
            # Whole numbers beside missing values would else become floats.
            table = opened.read(columns=wanted).to_pandas(ignore_metadata=True, integer_object_nulls=True)
        except (ValueError, OSError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: cannot be read as Parquet ({one_line(error)}); check the file") from None
        for name in (*used.values(), *others):
            if name in folders:
                table[name] = None if folders[name] == NO_VALUE else unquote(folders[name])
        texts = {column: text_of(table[name], name, str(file)) for column, name in used.items()}
        parts.append(pd.DataFrame(texts | texts_of_columns(table, others, str(file))))
    found = pd.concat(parts, ignore_index=True).fillna("")
    if found.empty:
        raise InputError(f"{path}: has no rows; give at least one row")
    for name in found.columns.difference([*used]):
        found[name] = without_point_zero(found[name].tolist())
    return found, used


def texts_of_columns(table: pd.DataFrame, names: Sequence[str], place: str) -> dict[str, "pd.Series[str]"]:
    """The named columns as texts; those that hold none, as vectors or bytes, are left out, and a line says so."""
    found = {name: plain_texts(table[name]) for name in names}
    left_out = [name for name, texts in found.items() if texts is None]
    if left_out:
        notice(f"{place}: columns that hold neither text nor numbers are left out: {', '.join(left_out)}")
    return {name: texts for name, texts in found.items() if texts is not None}
