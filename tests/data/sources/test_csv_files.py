"""A user's CSV files: what is read, and one line for every mistake."""

import gzip

import pandas as pd
import pytest

from recdistill.config.data import DataConfig
from recdistill.data.sources.csv_files import csv_files
from recdistill.errors import InputError

LOG = "user,item,timestamp\nann,007,30\nbob,7,10\nann,x,20\n"
ITEMS = "item,title\n007,Bond\n7,Seven\nx,Unknown letter\nNA,Not here\n"


def read_files(interactions: str, items: str):
    return csv_files(DataConfig(dataset="csv", interactions=interactions, items=items))


@pytest.fixture
def read(tmp_path):
    def read(log: str | bytes | None = LOG, items: str | bytes | None = ITEMS):
        for name, content in (("log.csv", log), ("items.csv", items)):
            if content is not None:
                (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return read_files(str(tmp_path / "log.csv"), str(tmp_path / "items.csv"))

    return read


def rows(log) -> list[tuple[str, str, int]]:
    return [
        (log.user_ids[user], log.item_ids[item], int(time))
        for user, item, time in zip(log.user, log.item, log.timestamp, strict=True)
    ]


EXPECTED = [("ann", "007", 30), ("bob", "7", 10), ("ann", "x", 20)]


def test_ids_stay_text_and_the_catalogue_whole(read):
    log = read()
    assert rows(log) == EXPECTED
    assert log.user_ids == ("ann", "bob")
    assert log.item_ids == ("007", "7", "x", "NA")
    assert log.titles == ("Bond", "Seven", "Unknown letter", "Not here")


@pytest.mark.parametrize(
    "log",
    [
        gzip.compress(LOG.encode(), mtime=0),
        b"\xef\xbb\xbf" + LOG.encode(),
        LOG.replace("\n", "\r\n"),
        LOG + "\n\n",
        "\n" + LOG,
        " user , item , timestamp \n ann , 007 , 30 \nbob,7,10\nann,x,20",
        'timestamp,rating,"user",item\n30,5,ann,007\n10,,"bob",7\n20,1,ann,x\n',
        "user,,item,,timestamp\nann,1,007,2,30\nbob,1,7,2,10\nann,1,x,2,20\n",
        "user,item,timestamp\nann,007,30.0\nbob,7,1e1\nann,x,20\n",
        "user,item,timestamp\nann,007,1970-01-01T00:00:30\nbob,7,1970-01-01 00:00:10\nann,x,1970-01-01T00:00:20Z\n",
        LOG.replace(",", ";"),
        LOG.replace(",", "\t"),
        LOG.replace(",", "|"),
        "sep=;\r\n" + LOG.replace(",", ";"),
        ",,\n" + LOG,
        " , ,\n\n" + LOG + ",,\n",
        LOG.replace("30", "30.000"),
        LOG.replace(",30", ",1970-01-01 00:00:30 UTC")
        .replace(",10", ",1970-01-01 00:00:10 UTC")
        .replace(",20", ",1970-01-01 00:00:20 UTC"),
    ],
)
def test_ways_of_writing_the_same(read, log):
    assert rows(read(log)) == EXPECTED


def test_repeated_interactions_are_kept(read):
    assert rows(read(LOG + "ann,007,30\n")) == [*EXPECTED, ("ann", "007", 30)]


def test_a_field_may_hold_commas_and_quotes(read):
    log = read(items='item,title\n007,"Bond, ""James"" "\n7,12" disc\nx,c\n')
    assert log.titles == ('Bond, "James"', '12" disc', "c")


def test_a_line_break_in_an_id_or_title_is_an_open_quote(read):
    with pytest.raises(InputError, match=r"items.csv: line 2: title opens a quote"):
        read(items='item,title\n007,"Bond,\nJames"\n7,b\nx,c\n')
    with pytest.raises(InputError, match=r"log.csv: line 5: user opens a quote"):
        read(LOG + '"bob,7,1\nbob,x,2\n"bob",x,3\n')


def test_items_without_a_title_or_a_row_have_their_id(read, said):
    log = read(LOG + "bob,zzz,1\n", "item,title\n007,a\n7, \nx\n")
    assert (log.item_ids, log.titles) == (("007", "7", "x", "zzz"), ("a", "7", "x", "zzz"))
    assert "warning: 3 of 4 items have no title (1 of them no row), as '7'" in said()[-1]


def test_columns_of_other_names(tmp_path, said):
    (tmp_path / "log.csv").write_text(
        LOG.replace("user,item,timestamp", "customer_id,sku,bought_at").replace(",", ";"), encoding="utf-8"
    )
    (tmp_path / "items.csv").write_text(ITEMS.replace("item,title", "product,name"))
    files = {"interactions": str(tmp_path / "log.csv"), "items": str(tmp_path / "items.csv")}
    columns = "user:customer_id,item:sku,item:product,timestamp:bought_at,title:name"
    assert rows(csv_files(DataConfig(dataset="csv", columns=columns, **files))) == EXPECTED
    assert said() == [
        f"read {files['items']} (text, separated by commas): item from product, title from name; 4 rows",
        f"read {files['interactions']} (text, separated by semicolons): user from customer_id, item from sku, "
        "timestamp from bought_at; 3 rows",
        f"{files['interactions']}: warning: item '7' and '007' are two items, as ids are text; write them one way if "
        "they are one",
    ]
    with pytest.raises(InputError, match="no file has a column 'ean' for item; leave it out"):
        csv_files(DataConfig(dataset="csv", columns=columns + ",item:ean", **files))
    with pytest.raises(InputError, match=r"items.csv: has no column 'titel', found product, name"):
        csv_files(DataConfig(dataset="csv", columns=columns.replace("name", "titel"), **files))


def test_a_folder_of_parquet_files(tmp_path, read):
    read()
    for name in ("log", "items"):
        (tmp_path / name).mkdir()
        table = pd.read_csv(tmp_path / f"{name}.csv", dtype=str, keep_default_na=False)
        table[:2].to_parquet(tmp_path / name / "part-0.parquet")
        table[2:].to_parquet(tmp_path / name / "part-1.parquet")
    assert rows(read_files(str(tmp_path / "log"), str(tmp_path / "items"))) == EXPECTED


def test_an_atomic_file_is_read_as_recbole_does(tmp_path):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nann\t007\t30\n")
    (tmp_path / "x.item").write_text('item_id:token\ttitle:token_seq\n007\t"Bond\n')
    log = read_files(str(tmp_path / "x.inter"), "")
    assert (rows(log), log.titles) == ([("ann", "007", 30)], ('"Bond',))


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "is empty; its first line must be user,item,timestamp"),
        ("\n\n", "is empty"),
        ("user,item,timestamp\n", "no rows"),
        ("user,item\na,7\n", "has no column 'timestamp', found user, item"),
        ("user:item:timestamp\na:7:1\n", "has no column 'user', found user:item:timestamp"),
        ("a,7,1\n", "has no column 'user', found a, 7, 1"),
        ("user,item,timestamp,item\na,7,1,7\n", "column 'item' stands twice"),
        ("user,item,timestamp\na,zzz,1\n", "none of its items is in .*items.csv"),
        (LOG + ",7,1\n", "row 4: user is blank"),
        (LOG + "bob, ,1\n", "row 4: item is blank"),
        (LOG + "bob,7,\n", "row 4: timestamp is blank"),
        (LOG + "bob,7\n", "row 4: timestamp is blank"),
        (LOG + "bob,7,NaN\n", "row 4: timestamp 'NaN'"),
        (LOG + "bob,7,1.5.2\n", "row 4: timestamp '1.5.2' is no whole number"),
        (LOG + "bob,7,1,9\n", "line 5 has 4 fields, the header 3; quote fields that hold commas"),
        ("user,item,timestamp\na,7,1,9\nb,7,1,9\n", "quote fields"),
        (b"user,item,timestamp\n\xff\xfe,7,1\n", "is not UTF-8"),
        (gzip.compress(LOG.encode(), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_mistakes_in_the_interactions(read, log, said):
    with pytest.raises(InputError, match=f"log.csv: .*{said}|log.csv: {said}") as caught:
        read(log)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("item,title\n007,a\n7,b\nx,c\n7,d\n", "row 4: item '7' stands twice"),
        ("item,title\n007,a\n,b\n", "row 2: item is blank"),
        ("item,name\n007,a\n", "has no column 'title', found item, name"),
        ("", "is empty"),
    ],
)
def test_mistakes_in_the_items(read, items, said):
    with pytest.raises(InputError, match=f"items.csv: {said}") as caught:
        read(items=items)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(read, tmp_path):
    with pytest.raises(InputError, match=r"interactions=.*log.csv: no such file"):
        read(log=None)
    (tmp_path / "items.csv").unlink()
    with pytest.raises(InputError, match=r"items=.*items.csv: no such file"):
        read(items=None)
    with pytest.raises(InputError, match="items=: dataset=csv needs"):
        read_files("x", "")
    with pytest.raises(InputError, match="is a folder without Parquet files"):
        read_files("x", str(tmp_path))
