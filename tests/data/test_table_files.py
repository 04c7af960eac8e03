"""Tables from files of text and Parquet, and the line that says what was taken."""

import datetime
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest

from recdistill.data.columns import INTERACTION_COLUMNS, headers_of
from recdistill.data.table_files import NO_VALUE, existing_file, read_table
from recdistill.errors import InputError

LOG = pd.DataFrame({"user": [7, 8, 7], "item": ["a", "b", " c "], "timestamp": [3, 1, 2]})
ROWS = [["7", "a", "3"], ["8", "b", "1"], ["7", "c", "2"]]


def read(path: Path, columns: str = "") -> list[list[str]]:
    return read_table(path, INTERACTION_COLUMNS, headers_of(columns))[0].values.tolist()


def test_one_parquet_file(tmp_path, said):
    LOG.assign(rating=1).to_parquet(tmp_path / "log.anything")
    assert read(tmp_path / "log.anything") == ROWS
    assert said() == [f"read {tmp_path}/log.anything (Parquet): user, item, timestamp; 3 rows"]


def test_a_folder_of_parquet_files_in_the_order_of_their_names(tmp_path, said):
    LOG[1:].to_parquet(tmp_path / "part-2.snappy.parquet")
    LOG[:1].to_parquet(tmp_path / "part-1.parquet")
    LOG[:0].to_parquet(tmp_path / "part-0.parquet")
    for ignored in ("_SUCCESS", "_metadata.parquet", ".part-1.parquet.crc", ".hidden.parquet"):
        (tmp_path / ignored).write_text("no data")
    assert read(tmp_path) == ROWS
    assert said() == [f"read {tmp_path} (Parquet, 3 files): user, item, timestamp; 3 rows"]


def test_folders_that_are_columns_as_hive_writes_them(tmp_path):
    LOG.to_parquet(tmp_path / "log", partition_cols=["user"])
    assert sorted(read(tmp_path / "log")) == sorted(ROWS)
    LOG.assign(user="a b/c").to_parquet(tmp_path / "other", partition_cols=["user"])
    assert {row[0] for row in read(tmp_path / "other")} == {"a b/c"}


def test_a_folder_of_rows_without_a_value_is_blank(tmp_path):
    LOG.assign(user=["x", None, "y"]).to_parquet(tmp_path / "log", partition_cols=["user"])
    assert (tmp_path / "log" / f"user={NO_VALUE}").is_dir()
    assert sorted(row[0] for row in read(tmp_path / "log")) == ["", "x", "y"]
    items = pd.DataFrame({"item": ["a", "b"], "title": ["A", "B"], "genre": ["Crime", None], "year": [None, 1995]})
    items.to_parquet(tmp_path / "items", partition_cols=["genre", "year"])
    found = read_table(tmp_path / "items", ("item", "title"), {}, further=True)[0].set_index("item")
    assert found["genre"].to_dict() == {"a": "Crime", "b": ""}
    assert found["year"].to_dict() == {"a": "", "b": "1995"}


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (pyarrow.array([2**53 + 1, None], pyarrow.int64()), [str(2**53 + 1), ""]),
        (pyarrow.array([7.0, 8.5]), ["7", "8.5"]),
        (pyarrow.array([7.0, float("nan")]), ["7", ""]),
        (pyarrow.array(["x", None]).dictionary_encode(), ["x", ""]),
        (pyarrow.array(["x", "y"], pyarrow.large_string()), ["x", "y"]),
        (pyarrow.array([datetime.date(2024, 1, 2), None]), ["2024-01-02", ""]),
    ],
)
def test_ids_of_any_type_become_text(tmp_path, users, expected):
    table = pyarrow.table({"user": users, "item": pyarrow.array([1, 2]), "timestamp": pyarrow.array([1, 2])})
    parquet.write_table(table, tmp_path / "log.parquet")
    assert [row[0] for row in read(tmp_path / "log.parquet")] == expected


def test_an_index_is_a_column_too(tmp_path):
    LOG.set_index("user").to_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet") == ROWS


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_other_names(tmp_path, said, kind):
    log = LOG.assign(item=LOG["item"].str.strip()).rename(columns={"user": "buyer", "timestamp": "when"})
    path = tmp_path / f"log.{kind}"
    log.to_csv(path, sep=";", index=False) if kind == "csv" else log.to_parquet(path)
    assert read(path, "user:buyer,timestamp:when") == ROWS
    form = "text, separated by semicolons" if kind == "csv" else "Parquet"
    assert said() == [f"read {path} ({form}): user from buyer, item, timestamp from when; 3 rows"]
    with pytest.raises(InputError, match="has no column 'user', found buyer, item, when"):
        read(path, "timestamp:when")


def test_a_gzipped_file_is_said_to_be_one(tmp_path, said):
    LOG.to_csv(tmp_path / "log.tsv.gz", sep="\t", index=False)
    assert read(tmp_path / "log.tsv.gz") == ROWS
    assert said() == [f"read {tmp_path}/log.tsv.gz (gzipped text, separated by tabs): user, item, timestamp; 3 rows"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04and so on", "is a zip archive; give text"),
        (b"BZh91", "is a bzip2 archive"),
        (b"PAR1 and nothing else", "cannot be read as Parquet"),
    ],
)
def test_other_files_are_refused(tmp_path, content, told):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"log.csv: {told}") as caught:
        read(tmp_path / "log.csv")
    assert "\n" not in str(caught.value)


def test_what_parquet_may_lack(tmp_path):
    with pytest.raises(InputError, match="is a folder without Parquet files"):
        read(tmp_path)
    LOG[:0].to_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read(tmp_path)
    LOG.assign(user=[[1], [2], [3]]).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="column 'user' holds lists"):
        read(tmp_path)
    LOG.drop(columns="item").to_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="has no column 'item', found user, timestamp"):
        read(tmp_path)


def test_a_path_is_checked_before_it_is_read(tmp_path):
    with pytest.raises(InputError, match=r"^items=: dataset=csv needs a file; set items=<file>$"):
        existing_file("items", "")
    with pytest.raises(InputError, match=r"^items=nowhere: no such file"):
        existing_file("items", "nowhere")
    with pytest.raises(InputError, match="is a folder"):
        existing_file("items", str(tmp_path))
    assert existing_file("items", str(tmp_path), folders=True) == tmp_path
