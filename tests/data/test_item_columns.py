"""Further columns of items files become plain text, the same from files of every kind and from frames."""

import datetime
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.config.data import DataConfig
from recdistill.data.frames import data_from_frames
from recdistill.data.item_columns import further_columns, plain_texts, without_point_zero
from recdistill.data.load import load_data

LOG = pd.DataFrame({"user": ["u"] * 6 + ["v"] * 6, "item": list("abcabd") * 2, "timestamp": range(12)})
ITEMS = pd.DataFrame(
    {
        "item": list("abc"),
        "title": ["A", "B", "C"],
        "year": [1995.0, None, 2001.0],
        "price": [9.5, 3.0, None],
        "genres": ["Crime|Drama", "", None],
        "adult": [True, False, True],
    }
)
# Item d stands in no file.
EXPECTED = {
    "year": ("1995", "", "2001", ""),
    "price": ("9.5", "3", "", ""),
    "genres": ("Crime|Drama", "", "", ""),
    "adult": ("True", "False", "True", ""),
}


def read(folder: Path, items: str, **options: object):
    LOG.to_csv(folder / "log.csv", index=False)
    files = {"interactions": str(folder / "log.csv"), "items": str(folder / items)}
    return load_data(DataConfig(dataset="csv", split="leave-one-out", **files, **options))


def test_a_csv_file_a_parquet_file_and_a_frame_have_the_same_columns(tmp_path, said):
    ITEMS.to_csv(tmp_path / "items.csv", index=False)
    ITEMS.to_parquet(tmp_path / "items.parquet")
    frames = data_from_frames(LOG, ITEMS, split="leave-one-out")
    for found in (read(tmp_path, "items.csv"), read(tmp_path, "items.parquet"), frames):
        assert dict(found.item_columns) == EXPECTED
    assert any(line.endswith("item, title; further columns year, price, genres, adult; 3 rows") for line in said())


def test_they_change_no_fingerprint():
    plain = data_from_frames(LOG, ITEMS[["item", "title"]], split="leave-one-out")
    assert plain.item_columns == {}
    assert data_from_frames(LOG, ITEMS, split="leave-one-out").fingerprint == plain.fingerprint


def test_items_that_are_left_out_leave_the_columns_too():
    found = data_from_frames(LOG, ITEMS, split="leave-one-out", min_item_interactions=3)
    assert found.item_ids == ("a", "b")
    assert {name: values[:2] for name, values in EXPECTED.items()} == dict(found.item_columns)


def test_columns_of_every_parquet_file_of_a_folder(tmp_path):
    for part, year in ((0, 1995), (1, 1996)):
        folder = tmp_path / "items" / f"category=old {part}"
        folder.mkdir(parents=True)
        ITEMS[part : part + 1][["item", "title"]].assign(year=year).to_parquet(folder / "x.parquet")
    found = read(tmp_path, "items")
    assert dict(found.item_columns) == {"year": ("1995", "1996", "", ""), "category": ("old 0", "old 1", "", "")}


def test_vectors_and_bytes_are_left_out_with_a_line(tmp_path, said):
    items = ITEMS[["item", "title"]].assign(
        vector=[[0.5, 1.0]] * 3, raw=[b"x"] * 3, words=[["Crime", "Drama"], [], None], parts=[{"a": 1}] * 3
    )
    items.to_parquet(tmp_path / "items.parquet")
    for found in (read(tmp_path, "items.parquet"), data_from_frames(LOG, items, split="leave-one-out")):
        assert dict(found.item_columns) == {"words": ("Crime, Drama", "", "", "")}
    told = "columns that hold neither text nor numbers are left out: vector, raw, parts"
    assert sum(line.endswith(told) for line in said()) == 2


def test_a_line_break_in_a_further_column_is_text(tmp_path):
    (tmp_path / "items.csv").write_text('item,title,plot\na,A,"one\ntwo"\nb,B,"say ""hi"""\nc,C,\n')
    assert dict(read(tmp_path, "items.csv").item_columns) == {"plot": ("one\ntwo", 'say "hi"', "", "")}


def test_an_index_without_name_and_other_names_of_ids_are_none(tmp_path):
    renamed = ITEMS[["item", "title", "year"]].rename(columns={"item": "sku", "title": "name"})
    renamed.assign(item="x", title="y").to_csv(tmp_path / "items.csv")
    found = read(tmp_path, "items.csv", columns="item:sku,title:name")
    assert found.titles == ("A", "B", "C", "d")
    assert dict(found.item_columns) == {"year": EXPECTED["year"]}


@pytest.mark.parametrize("name", ["self", "index", "user", "timestamp", "0", "a b", "Ünï"])
def test_any_name_can_be_a_column_s(tmp_path, name):
    items = ITEMS[["item", "title"]].assign(**{"x": ["p", "q", "r"]}).rename(columns={"x": name})
    items.to_csv(tmp_path / "items.csv", index=False)
    for found in (read(tmp_path, "items.csv"), data_from_frames(LOG, items, split="leave-one-out")):
        assert dict(found.item_columns) == {name: ("p", "q", "r", "")}


def test_names_that_stand_twice_are_left_out():
    assert further_columns(["item", "tag", "tag", "year", ""], ["item"]) == ["year"]
    items = pd.DataFrame([["a", "A", "1", "2"]], columns=["item", "title", "tag", "tag"])
    assert data_from_frames(LOG, items, split="leave-one-out").item_columns == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([1, None], dtype="Int64"), ["1", ""]),
        (pd.Series([0.1, 2.0], dtype="float32"), ["0.1", "2"]),
        (pd.Series(["x", None], dtype="category"), ["x", ""]),
        (pd.to_datetime(pd.Series(["1995-01-02", None])), ["1995-01-02", ""]),
        (
            pd.Series([pd.Timestamp("1995-01-02"), pd.Timestamp("1995-01-02 10:00")]),
            ["1995-01-02 00:00:00", "1995-01-02 10:00:00"],
        ),
        (pd.Series([datetime.date(1995, 1, 2)]), ["1995-01-02"]),
        (pd.Series(["at 00:00:00"]), ["at 00:00:00"]),
        (pd.Series([Decimal("9.00"), Decimal("9.50")]), ["9", "9.50"]),
        (pd.Series([("a", " b "), np.array(["c"]), ["", "d"]]), ["a, b", "c", "d"]),
        (pd.Series([" x ", float("nan"), pd.NA, pd.NaT]), ["x", "", "", ""]),
        (pd.Series(["1.0", "beta"]), ["1.0", "beta"]),
        (pd.Series([], dtype=object), []),
    ],
)
def test_values_of_every_type(values, expected):
    assert plain_texts(values).tolist() == expected


@pytest.mark.parametrize("value", [b"x", {"a": 1}, [1.5, 2.5], object()])
def test_what_is_no_text(value):
    assert plain_texts(pd.Series(["x", value])) is None


NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(repr).filter(lambda text: "e" not in text)


@settings(max_examples=100, deadline=None)
@given(st.lists(NUMBERS | st.integers(-(10**20), 10**20).map(str) | st.just(""), max_size=8))
def test_numbers_keep_their_value(texts: list[str]) -> None:
    for before, after in zip(texts, without_point_zero(texts), strict=True):
        assert (before == "") == (after == "")
        assert not after.endswith(".0")
        assert not after or math.isclose(float(after), float(before), rel_tol=0, abs_tol=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=4), max_size=6), st.sampled_from(["x", "1.", ".5", "1,5", "1e3"]))
def test_a_column_with_other_text_stays_as_it_is(texts: list[str], other: str) -> None:
    assert without_point_zero([*texts, "1.0", other]) == [*texts, "1.0", other]
