"""A user's CSV files: what is read, and one line for every mistake."""

import gzip

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
        gzip.compress(LOG.encode()),
        b"\xef\xbb\xbf" + LOG.encode(),
        LOG.replace("\n", "\r\n"),
        LOG + "\n\n",
        "\n" + LOG,
        " user , item , timestamp \n ann , 007 , 30 \nbob,7,10\nann,x,20",
        'timestamp,rating,"user",item\n30,5,ann,007\n10,,"bob",7\n20,1,ann,x\n',
        "user,,item,,timestamp\nann,1,007,2,30\nbob,1,7,2,10\nann,1,x,2,20\n",
        "user,item,timestamp\nann,007,30.0\nbob,7,1e1\nann,x,20\n",
        "user,item,timestamp\nann,007,1970-01-01T00:00:30\nbob,7,1970-01-01 00:00:10\nann,x,1970-01-01T00:00:20Z\n",
    ],
)
def test_ways_of_writing_the_same(read, log):
    assert rows(read(log)) == EXPECTED


def test_repeated_interactions_are_kept(read):
    assert rows(read(LOG + "ann,007,30\n")) == [*EXPECTED, ("ann", "007", 30)]


def test_a_field_may_hold_commas_and_line_breaks(read):
    assert read(items='item,title\n007,"Bond,\nJames"\n7,b\nx,c\n').titles[0] == "Bond,\nJames"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "is empty; its first line must be user,item,timestamp"),
        ("\n\n", "is empty"),
        ("user,item,timestamp\n", "no rows"),
        ("user,item\na,7\n", "has no column 'timestamp', found user, item"),
        ("user;item;timestamp\na;7;1\n", "has no column 'user', found user;item;timestamp"),
        ("a,7,1\n", "has no column 'user', found a, 7, 1"),
        ("user,item,timestamp,item\na,7,1,7\n", "column 'item' stands twice"),
        (LOG + "bob,zzz,1\n", "row 4: unknown item 'zzz' .*items.csv"),
        (LOG + ",7,1\n", "row 4: user is blank"),
        (LOG + "bob, ,1\n", "row 4: item is blank"),
        (LOG + "bob,7,\n", "row 4: timestamp is blank"),
        (LOG + "bob,7\n", "row 4: timestamp is blank"),
        (LOG + "bob,7,NaN\n", "row 4: timestamp 'NaN'"),
        (LOG + "bob,7,1.5\n", "row 4: timestamp '1.5' is no whole number"),
        (LOG + "bob,7,1,9\n", "line 5"),
        ("user,item,timestamp\na,7,1,9\nb,7,1,9\n", "quote fields"),
        (b"user,item,timestamp\n\xff\xfe,7,1\n", "is not UTF-8"),
        (gzip.compress(LOG.encode())[:-9], "cannot be read"),
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
        ("item,title\n007,a\n7, \nx,c\n", "row 2: title is blank"),
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
    with pytest.raises(InputError, match="is a folder"):
        read_files("x", str(tmp_path))
