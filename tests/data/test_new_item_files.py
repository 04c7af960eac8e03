import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest

from recdistill.data.new_item_files import read_item_vectors, read_new_items
from recdistill.errors import InputError


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("sku,title,year,genres\n 007 ,Heat,1995.0,Crime|Drama\nn2,,,\n")
    return str(path)


def test_items_are_read_by_the_rules_of_the_items_file(items, capsys):
    found = read_new_items(items, "item:sku", {"1", "7"}, ["genres", "year"])
    assert found.to_dict("list") == {
        "item": ["007", "n2"],
        "title": ["Heat", "n2"],
        "genres": ["Crime|Drama", ""],
        "year": ["1995", ""],
    }
    assert "1 of 2 items have no title" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["new.tsv.gz", "new.parquet"])
def test_other_forms_of_files_are_read_too(tmp_path, name):
    table = pd.DataFrame({"item": ["a", "b"], "title": ["One", "Two"], "year": [1995.0, None]})
    path = tmp_path / name
    table.to_parquet(path) if name.endswith("parquet") else table.to_csv(path, sep="\t", index=False)
    assert read_new_items(str(path), "", (), ["year"])["year"].tolist() == ["1995", ""]


@pytest.mark.parametrize(
    ("text", "known", "message"),
    [
        ("item,title\na,A\nb,B\n", {"b"}, "row 2: item 'b' is known \\(in 1 rows\\) already; leave it out"),
        ("item,title\na,A\na,B\n", (), "row 2: item 'a' stands twice"),
        ("item,title\n ,A\n", (), "row 1: item is blank"),
        ("item\na\n", (), "has no column 'title'"),
        ("item,title\na,A\n", (), "has no column 'year', which items' texts are made of; add it, blank where unknown"),
    ],
)
def test_a_file_that_is_not_so_is_refused_in_one_line(tmp_path, text, known, message):
    path = tmp_path / "new.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_new_items(str(path), "", known, ["year"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("items", ["", "nowhere.csv"])
def test_no_file_is_refused(items):
    with pytest.raises(InputError, match=f"^items={items}: no such file"):
        read_new_items(items, "", (), [])


def write(folder, rows):
    path = folder / "vectors.parquet"
    pd.DataFrame(rows, columns=["item", "vector"]).to_parquet(path)
    return str(path)


def test_vectors_are_in_the_order_of_the_items(tmp_path):
    path = write(tmp_path, [("b", [1.0, 2.0]), ("c", [9.0, 9.0]), ("a", [3.0, 4.0])])
    assert read_item_vectors(path, ["a", "b"], 2).tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize("ids", [[7, 8], [7.0, 8.0], [b"7", b"8 "], ["7", " 8"]])
def test_ids_of_vectors_become_the_text_that_those_of_items_become(tmp_path, ids):
    parquet.write_table(pyarrow.table({"item": ids, "title": ["A", "B"]}), tmp_path / "items.parquet")
    parquet.write_table(pyarrow.table({"item": ids, "vector": [[1.0], [2.0]]}), tmp_path / "vectors.parquet")
    found = read_new_items(str(tmp_path / "items.parquet"), "", (), [])["item"].tolist()
    assert found == ["7", "8"]
    assert read_item_vectors(str(tmp_path / "vectors.parquet"), found, 1).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("ids", "message"), [(["a", None], "row 2: item is blank"), ([b"\xff", b"a"], "no UTF-8 text")]
)
def test_ids_of_vectors_that_are_none_are_refused(tmp_path, ids, message):
    parquet.write_table(pyarrow.table({"item": ids, "vector": [[1.0], [2.0]]}), tmp_path / "vectors.parquet")
    with pytest.raises(InputError, match=f"vectors.parquet: .*{message}"):
        read_item_vectors(str(tmp_path / "vectors.parquet"), ["a"], 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("b", [1.0, 2.0])], "has no row of item 'a'"),
        ([("a", [1.0])], "item 'a': is no list of 2 finite numbers"),
        ([("a", [1.0, float("nan")])], "item 'a': is no list of 2 finite numbers"),
        ([("a", [1.0, 2.0, 3.0])], "item 'a': is no list of 2"),
        ([("a", "text")], "item 'a': is no list of 2 numbers"),
        ([("a", [1.0, 2.0]), ("a", [1.0, 2.0])], "item 'a' stands twice"),
    ],
)
def test_vectors_that_are_not_so_are_refused_in_one_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=f"vectors.parquet.*{message}") as caught:
        read_item_vectors(write(tmp_path, rows), ["a"], 2)
    assert "\n" not in str(caught.value)


def test_a_file_of_vectors_that_is_no_parquet_or_lacks_a_column_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("item,vector\n")
    pd.DataFrame({"item": ["a"], "vektor": [[1.0]]}).to_parquet(tmp_path / "other.parquet")
    for name, message in {
        "text": "cannot be read as Parquet",
        "other": "columns item and vector",
        "gone": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=message):
            read_item_vectors(str(tmp_path / f"{name}.parquet"), ["a"], 1)
