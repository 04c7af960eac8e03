"""Files of histories: what is read, what is refused, and what is written."""

import csv
import datetime
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill.data.histories import (
    FORMATS,
    read_histories,
    recommended_rows,
    refuse_unknown_items,
    write_recommendations,
)
from recdistill.errors import InputError

ANSWERS = pd.DataFrame(
    {
        "items": [["a", "b"], [], ["c"]],
        "titles": [["A", "B"], [], ["C"]],
        "scores": [[2.5, 1.0], [], [7.0]],
        "unknown_items": [1, 0, 0],
        "fallback": [False, False, True],
    }
)


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def written(folder: Path, table: pd.DataFrame, suffix: str) -> pd.DataFrame:
    """What is kept of the recommendations, written in one format, from what was kept as Parquet: as the step does."""
    answers = pd.concat([ANSWERS[:1]] * len(table), ignore_index=True)
    write_recommendations(recommended_rows(table, answers), folder / "kept.parquet")
    path = folder / f"out{suffix}"
    write_recommendations(pd.read_parquet(folder / "kept.parquet"), path)
    if suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in path.read_text().split("\n") if line], dtype=object)
    if suffix == ".csv":
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.read_parquet(path)


def test_the_three_formats_hold_the_same(tmp_path):
    rows = [{"user": "u1", "history": ["1", "2"], "k": 3, "exclude": ["9"]}, {"user": "u2", "history": []}]
    lines = write(tmp_path, "h.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    csv = write(tmp_path, "h.csv", "user,history,k,exclude\nu1,1|2,3,9\nu2,,,\n")
    parquet = str(tmp_path / "h.parquet")
    pd.DataFrame(rows).to_parquet(parquet)
    for file in (lines, csv, parquet):
        table = read_histories(file)
        assert table["history"].tolist() == [["1", "2"], []]
        assert table["exclude"].tolist() == [["9"], []]
        assert table["user"].tolist() == ["u1", "u2"]
        assert table["k"].fillna(0).tolist() == [3, 0]


def test_whole_numbers_are_ids_too(tmp_path):
    text = '{"history": [50, "007", 7.0, 1e3, 1000000000000000000000000]}'
    assert read_histories(write(tmp_path, "h.jsonl", text))["history"][0] == ["50", "007", "7", "1000", "1" + "0" * 24]
    for values in ([1, 2], [1.0, 2.0], np.array([1, 2], dtype=np.uint8)):
        pd.DataFrame({"history": [values]}).to_parquet(tmp_path / "h.parquet")
        assert read_histories(str(tmp_path / "h.parquet"))["history"][0] == ["1", "2"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_white_space_around_ids_is_stripped_as_in_training(tmp_path, suffix):
    file = tmp_path / f"h{suffix}"
    ids = [" b 1", "b2\t", "\u00a0b3"]
    if suffix == ".csv":
        file.write_text("history,exclude\n" + "|".join(ids) + ",  x |y \n", encoding="utf-8")
    elif suffix == ".jsonl":
        file.write_text(json.dumps({"history": ids, "exclude": ["  x ", "y "]}))
    else:
        pd.DataFrame({"history": [ids], "exclude": [["  x ", "y "]]}).to_parquet(file)
    table = read_histories(str(file))
    assert table["history"][0] == ["b 1", "b2", "b3"]
    assert table["exclude"][0] == ["x", "y"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('"b1,b2"', ["b1", "b2"]),
        ("b1,b2", ["b1", "b2"]),
        ('" b1 , b 2,,"', ["b1", "b 2"]),
        ("b1|b2", ["b1", "b2"]),
        ('"b1,x|b2"', ["b1,x", "b2"]),
        ("b1", ["b1"]),
        ('""', []),
        ('"[""b1"", ""b,|2"", 7]"', ["b1", "b,|2", "7"]),
        ("\"['b1', 'b,|2', 7]\"", ["b1", "b,|2", "7"]),
        ('"[\'it\\\'s\', ""it\'s""]"', ["it's", "it's"]),
        ('"[b1, b2]"', ["b1", "b2"]),
        ("[]", []),
        ("[7]", ["7"]),
        ("[b1", ["[b1"]),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_lists_in_csv(tmp_path, cell, expected, alone):
    if not alone and cell == "b1,b2":
        cell = '"b1,b2"'
    text = f"history\n{cell}\n" if alone else f"user,history\nu,{cell}\n"
    assert read_histories(write(tmp_path, "h.csv", text))["history"].tolist() == [expected]


def test_where_one_row_has_bars_commas_are_of_the_ids(tmp_path):
    text = 'history\nb1|b2\n"b3,b4"\n'
    assert read_histories(write(tmp_path, "h.csv", text))["history"].tolist() == [["b1", "b2"], ["b3,b4"]]


@pytest.mark.parametrize("separator", ["\t", ";", ","])
def test_the_header_tells_what_separates_fields(tmp_path: Path, separator: str) -> None:
    text = f"user{separator}history\nu1{separator}b1|b2\n"
    for name in ("h.tsv", "h.csv"):
        assert read_histories(write(tmp_path, name, text))["history"].tolist() == [["b1", "b2"]]


@pytest.mark.parametrize("name", ["h.csv", "h.csv.gz", "h.jsonl", "h.jsonl.gz"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_gzip_and_byte_order_marks(tmp_path, name, zipped, mark):
    text = mark + (
        b"\r\n history;user\r\nb1|b2;u\r\n" if "csv" in name else b'{"history": ["b1", "b2"], "user": "u"}\r\n\r\n'
    )
    (tmp_path / name).write_bytes(gzip.compress(text, mtime=0) if zipped else text)
    table = read_histories(str(tmp_path / name))
    assert table["history"].tolist() == [["b1", "b2"]]
    assert table["user"].tolist() == ["u"]


def test_an_index_is_no_column_unless_it_has_a_name(tmp_path):
    frame = pd.DataFrame({"user": ["u", "v"], "history": [["1"], ["2", "3"]]}, index=[5, 5])
    frame.assign(history=["1", "2|3"]).to_csv(tmp_path / "h.csv")
    frame.to_parquet(tmp_path / "h.parquet")
    frame.set_index("user").to_parquet(tmp_path / "named.parquet")
    for name in ("h.csv", "h.parquet", "named.parquet"):
        table = read_histories(str(tmp_path / name))
        assert sorted(table.columns) == ["history", "user"]
        assert (table["user"].tolist(), table["history"].tolist()) == (["u", "v"], [["1"], ["2", "3"]])
        assert table.index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", 5], ["a", "5"]),
        ([5, None], [5, None]),
        ([2**53 + 1, None], [2**53 + 1, None]),
        ([5, 6], [5, 6]),
        ([10**30, 1], ["1" + "0" * 30, "1"]),
        ([2.5, 1], [2.5, 1.0]),
        ([True, None], [True, None]),
        ([True, "x"], ["true", "x"]),
        ([{"a": 1}, "x"], ['{"a": 1}', "x"]),
        ([{}, {}], ["{}", "{}"]),
        ([[1, "a"], [2]], ['[1, "a"]', "[2]"]),
        (["\ud800", "ü"], ["?", "ü"]),
        ([None, None], [None, None]),
        ([10**400, 0.5], [str(10**400), "0.5"]),
    ],
)
def test_own_columns_of_any_values_are_kept(tmp_path, values, expected):
    rows = [{"history": ["1"], "user": value} for value in values]
    table = read_histories(write(tmp_path, "h.jsonl", "\n".join(map(json.dumps, rows))))
    assert written(tmp_path, table, ".jsonl")["user"].tolist()[::2] == expected
    for suffix in (".csv", ".parquet"):
        assert len(written(tmp_path, table, suffix)) == 2 * len(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["user", "item", "row", "é\ud800", "", "index", "0"]), JSON),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_else_a_row_holds_there_is_a_recommendation_for_it(tmp_path, rows):
    text = "\n".join(json.dumps(row | {"history": ["1"]}) for row in rows)
    table = read_histories(write(tmp_path, "h.jsonl", text))
    for suffix in FORMATS:
        assert len(written(tmp_path, table, suffix)) == 2 * len(rows)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("h.txt", "", "must end in .jsonl, .parquet, .csv"),
        ("absent.csv", None, "there is no such file"),
        ("h.jsonl", '{"history": ["1"]}\n{"history"', "line 2"),
        ("h.jsonl", "[1]", "line 1: is no object"),
        ("h.jsonl", "[" * 100_000, "line 1"),
        ("h.jsonl", '{"items": ["1"]}', "has no column history; it has items"),
        ("h.jsonl", "", "has no column history"),
        ("h.csv", "history\n", "holds no row"),
        ("h.csv", "", "is empty"),
        ("h.parquet", "PAR1", "cannot be read"),
        ("h.csv.gz", "\x1f\x8b", "has no column history"),
        ("h.jsonl", '{"history": ["1"]}\n{"history": "1 2"}', "row 2: history is '1 2'; give a list"),
        ("h.jsonl", '{"history": {"1": 2}}', "row 1: history is {'1': 2}; give a list"),
        ("h.jsonl", '{"history": null}', "row 1: history is None"),
        ("h.jsonl", '{"history": [1.5]}', "row 1: history holds 1.5"),
        ("h.jsonl", '{"history": [NaN]}', "row 1: history holds nan"),
        ("h.jsonl", '{"history": [null]}', "row 1: history holds None"),
        ("h.jsonl", '{"history": [true]}', "row 1: history holds True"),
        ("h.jsonl", '{"history": [["1"]]}', "row 1: history holds ['1']"),
        ("h.jsonl", '{"history": ["1"], "exclude": "2"}', "row 1: exclude is '2'"),
        ("h.csv", "history,k\n1,2\n1,0\n", "row 2: k is 0"),
        ("h.csv", "history,k\n1,two\n", "row 1: k is two"),
        ("h.csv", "history,k\n1,1e300\n", "row 1: k is 1e300"),
        ("h.jsonl", '{"history": ["1"], "k": 1.5}', "row 1: k is 1.5"),
        ("h.jsonl", '{"history": ["1"], "k": Infinity}', "row 1: k is inf"),
        ("h.csv", 'history,user\n"[1, null]",u\n', "row 1: history holds None"),
        ("h.csv", "history,user\n['b1' 'b2'],u\n", "row 1: history is \"['b1' 'b2']\"; write a list as JSON does"),
        ("h.csv", 'history,user\n1,u\n"2,v\n3,w\n"4",x\n', "line 3: history opens a quote"),
        ("h.csv", "history,user\n1,u,2\n", "line 2 has 3 fields, the header 2; quote fields that hold commas"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, text, told):
    file = str(tmp_path / name) if text is None else write(tmp_path, name, text)
    with pytest.raises(InputError) as caught:
        read_histories(file)
    assert told in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_any_known_item_is_an_error(tmp_path):
    rows = pd.DataFrame({"history": [[], ["7.0", "8.0"], ["9.0"]]})
    with pytest.raises(InputError) as caught:
        refuse_unknown_items("h.csv", rows, pd.Series([0, 2, 1]), ["x", "7", "12"])
    assert str(caught.value) == (
        "histories=h.csv: none of its 3 item ids is known to the model, which has ids as '7'; row 2 begins with '7.0': "
        "write ids as the data's source does, or choose the model of these items"
    )
    with pytest.raises(InputError, match="known to the model; row 2 begins"):
        refuse_unknown_items("h.csv", rows, pd.Series([0, 2, 1]), [])
    refuse_unknown_items("h.csv", rows, pd.Series([0, 2, 0]), ["9.0"])
    refuse_unknown_items("h.csv", rows[:1], pd.Series([0]), ["9.0"])


def test_a_row_an_item_with_the_columns_of_its_history():
    table = pd.DataFrame({"user": ["x", "y", "z"], "history": [[], [], []], "k": [1, 1, 1], "rank": [5, 6, 7]})
    rows = recommended_rows(table, ANSWERS)
    assert rows[["row", "user", "rank", "item", "title", "score", "fallback"]].values.tolist() == [
        [1, "x", 1, "a", "A", 2.5, False],
        [1, "x", 2, "b", "B", 1.0, False],
        [3, "z", 1, "c", "C", 7.0, True],
    ]
    assert rows["own_rank"].tolist() == [5, 5, 7]
    assert "history" not in rows
    assert "k" not in rows


def test_own_columns_called_like_those_of_the_answer_are_kept(tmp_path):
    row = {"item": "i", "row": 9, "title": "t", "own_item": "o", "score": 0, "items": "is"}
    table = read_histories(write(tmp_path, "h.jsonl", json.dumps(row | {"history": ["1"]})))
    rows = written(tmp_path, table, ".jsonl")
    assert rows["item"].tolist() == ["a", "b"]
    assert rows["row"].tolist() == [1, 1]
    own = {"own_own_item": "i", "own_row": 9, "own_title": "t", "own_item": "o", "own_score": 0, "items": "is"}
    assert {name: rows[name].tolist() for name in own} == {name: [value] * 2 for name, value in own.items()}


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read_again(tmp_path, suffix):
    rows = recommended_rows(pd.DataFrame({"history": [[], [], []]}), ANSWERS)
    path = tmp_path / f"out{suffix}"
    write_recommendations(rows, path)
    read = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.read_json(file, lines=True),
    }[suffix](path)
    assert read["item"].tolist() == ["a", "b", "c"]
    assert read["rank"].tolist() == [1, 2, 1]
    assert read["score"].tolist() == [2.5, 1.0, 7.0]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_allowed_items_are_a_list_or_none(tmp_path):
    rows = [{"history": ["1"], "allowed_items": [" 2", 3]}, {"history": ["1"]}, {"history": ["1"], "allowed_items": []}]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pd.DataFrame({"history": [["1"]] * 3, "allowed_items": [["2", "3"], None, []]}).to_parquet(tmp_path / "h.parquet")
    for name in ("h.jsonl", "h.parquet"):
        assert read_histories(str(tmp_path / name))["allowed_items"].tolist() == [["2", "3"], None, []]
    (tmp_path / "h.csv").write_text("history,allowed_items\n1|2,2|3\n1|2,\n1|2,[]\n")
    assert read_histories(str(tmp_path / "h.csv"))["allowed_items"].tolist() == [["2", "3"], None, []]
    (tmp_path / "h.jsonl").write_text(json.dumps({"history": ["1"], "allowed_items": "2"}))
    with pytest.raises(InputError, match="row 1: allowed_items is '2'"):
        read_histories(str(tmp_path / "h.jsonl"))


def own_columns(folder: Path) -> pd.DataFrame:
    """Histories with columns of a person's own that text holds only if it is written with care."""
    columns = {
        "history": [["a"], ["b"]],
        "when": pyarrow.array([datetime.datetime(2024, 5, 1, 12, 30, 0, 123456), None]),
        "day": [datetime.date(2024, 5, 1)] * 2,
        "price": [0.1234567890123, 1e-12],
        "tags": [["p", "q"], ["r\rs"]],
        "big": [2**60 + 1, None],
        "blob": [b"x", b"y"],
    }
    parquet.write_table(pyarrow.table(columns), folder / "h.parquet")
    return read_histories(str(folder / "h.parquet"))


def test_text_holds_every_value_of_own_columns_and_every_digit_of_scores(tmp_path):
    own = {"when": ["2024-05-01T12:30:00.123456", None], "day": ["2024-05-01"] * 2, "price": [0.1234567890123, 1e-12]}
    own |= {"tags": [["p", "q"], ["r\rs"]], "big": [2**60 + 1, None], "blob": ["x", "y"]}
    rows = recommended_rows(own_columns(tmp_path), ANSWERS.iloc[[0, 0]].assign(scores=[[1 / 3, 3e-11]] * 2))
    for suffix in (".jsonl", ".csv"):
        write_recommendations(rows, tmp_path / f"out{suffix}")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[row[name] for name in own] for row in found[::2]] == [list(row) for row in zip(*own.values(), strict=True)]
    assert [row["score"] for row in found] == [1 / 3, 3e-11] * 2
    assert found[0]["fallback"] is False
    with (tmp_path / "out.csv").open(newline="") as file:
        fields = list(csv.DictReader(file))
    assert [row["when"] for row in fields[::2]] == ["2024-05-01T12:30:00.123456", ""]
    assert [json.loads(row["tags"]) for row in fields[::2]] == own["tags"]
    assert [(row["big"], row["blob"]) for row in fields[::2]] == [(str(2**60 + 1), "x"), ("", "y")]
    for name, values in (("price", [0.1234567890123, 1e-12]), ("score", [1 / 3] * 2)):
        assert [float(row[name]) for row in fields[::2]] == values


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_that_are_no_text_are_refused_before_anything_is_written(tmp_path, suffix):
    rows = recommended_rows(own_columns(tmp_path).assign(blob=[b"x\xff", b"y"]), ANSWERS.iloc[[0, 0]])
    out = tmp_path / f"out{suffix}"
    if suffix == ".parquet":
        write_recommendations(rows, out)
        assert pd.read_parquet(out)["blob"][0] == b"x\xff"
        return
    with pytest.raises(
        InputError, match=f"out{suffix}: column 'blob' holds bytes that are no UTF-8 text; write .parquet"
    ):
        write_recommendations(rows, out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["h.parquet"]


def test_ids_that_are_bytes_are_text_as_in_training(tmp_path):
    for history, expected in (([b" 7", "é".encode()], ["7", "é"]), ([b"\xff"], None)):
        parquet.write_table(pyarrow.table({"history": [history]}), tmp_path / "h.parquet")
        if expected is not None:
            assert read_histories(str(tmp_path / "h.parquet"))["history"].tolist() == [expected]
            continue
        with pytest.raises(InputError, match="row 1: history holds bytes that are no UTF-8 text"):
            read_histories(str(tmp_path / "h.parquet"))
    parquet.write_table(pyarrow.table({"history": [[["a"]]]}), tmp_path / "h.parquet")
    with pytest.raises(InputError, match=r"row 1: history holds array\(\['a'\], dtype=object\); ids are text"):
        read_histories(str(tmp_path / "h.parquet"))
    parquet.write_table(pyarrow.table({"history": [b"77"]}), tmp_path / "h.parquet")
    with pytest.raises(InputError, match="row 1: history is b'77'; give a list of item ids"):
        read_histories(str(tmp_path / "h.parquet"))
