import json

import pandas as pd
import pytest

from recdistill.data.histories import FORMATS, read_histories, recommended_rows, write_recommendations
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
    assert read_histories(write(tmp_path, "h.jsonl", '{"history": [50, "007"]}'))["history"][0] == ["50", "007"]
    pd.DataFrame({"history": [[1, 2]]}).to_parquet(tmp_path / "h.parquet")
    assert read_histories(str(tmp_path / "h.parquet"))["history"][0] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("h.txt", "", "must end in .jsonl, .parquet, .csv"),
        ("absent.csv", None, "there is no such file"),
        ("h.jsonl", '{"history": ["1"]}\n{"history"', "line 2"),
        ("h.jsonl", "[1]", "line 1: is no object"),
        ("h.jsonl", '{"items": ["1"]}', "has no column history; it has items"),
        ("h.jsonl", "", "has no column history"),
        ("h.csv", "history\n", "holds no row"),
        ("h.parquet", "PAR1", "cannot be read"),
        ("h.jsonl", '{"history": ["1"]}\n{"history": "1 2"}', "row 2: history is '1 2'; give a list"),
        ("h.jsonl", '{"history": null}', "row 1: history is None"),
        ("h.jsonl", '{"history": [1.5]}', "row 1: history holds 1.5"),
        ("h.jsonl", '{"history": [null]}', "row 1: history holds None"),
        ("h.jsonl", '{"history": [true]}', "row 1: history holds True"),
        ("h.jsonl", '{"history": ["1"], "exclude": "2"}', "row 1: exclude is '2'"),
        ("h.csv", "history,k\n1,2\n1,0\n", "row 2: k is 0"),
        ("h.csv", "history,k\n1,two\n", "row 1: k is two"),
        ("h.jsonl", '{"history": ["1"], "k": 1.5}', "row 1: k is 1.5"),
        ("h.jsonl", '{"history": ["1"], "k": Infinity}', "row 1: k is inf"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, text, said):
    file = str(tmp_path / name) if text is None else write(tmp_path, name, text)
    with pytest.raises(InputError) as caught:
        read_histories(file)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_an_item_with_the_columns_of_its_history():
    table = pd.DataFrame({"user": ["x", "y", "z"], "history": [[], [], []], "k": [1, 1, 1], "rank": [0, 0, 0]})
    rows = recommended_rows(table, ANSWERS)
    assert rows[["row", "user", "rank", "item", "title", "score", "fallback"]].values.tolist() == [
        [1, "x", 1, "a", "A", 2.5, False],
        [1, "x", 2, "b", "B", 1.0, False],
        [3, "z", 1, "c", "C", 7.0, True],
    ]
    assert "history" not in rows
    assert "k" not in rows


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
