"""Rankings that others made: ranks against a definition written out, and what files are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import write_csv

from recdistill.config import DataConfig
from recdistill.data.frames import data_from_frames
from recdistill.data.load import load_data
from recdistill.data.ranking_files import read_ranking
from recdistill.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(DataConfig(**write_csv(tmp_path_factory.mktemp("data"))))


def written(folder, rows, columns, name="mine.csv"):
    path = folder / name
    frame = pd.DataFrame(rows, columns=columns)
    frame.to_parquet(path) if name.endswith(".parquet") else frame.to_csv(path, index=False)
    return path


def seen(data, place):
    samples = data.test
    return {data.item_ids[item] for item in samples.items[samples.start[place] : samples.end[place]]}


@given(seed=st.integers(0, 10_000), by=st.sampled_from(["rank", "score"]), exclude=st.booleans())
def test_ranks_are_those_of_a_definition_written_out(data, tmp_path_factory, seed, by, exclude):
    drawn = np.random.default_rng(seed)
    rows = []
    for user in data.user_ids:
        items = drawn.permutation([*data.item_ids, "nobody's"])[: drawn.integers(0, 12)]
        rows += [(user, item, int(drawn.integers(1, 6))) for item in items]
    rows = rows or [(data.user_ids[0], data.item_ids[0], 1)]
    path = written(tmp_path_factory.mktemp("file"), rows, ["user", "item", by])
    found = read_ranking("mine", path, data).ranks(data.test, data.num_items, exclude_seen=exclude)
    for place, target in enumerate(data.test.targets):
        user = data.user_ids[data.test.user[place]]
        own = {item: value for of, item, value in rows if of == user}
        if exclude:
            own = {item: value for item, value in own.items() if item not in seen(data, place)}
        value = own.get(data.item_ids[target])
        if value is None:
            assert found[place] == data.num_items + 1
        else:
            better = (lambda one, v=value: one <= v) if by == "rank" else (lambda one, v=value: one >= v)
            assert found[place] == sum(better(one) for one in own.values())


def test_lists_are_the_best_known_items_without_the_history(data, tmp_path):
    user, items = data.user_ids[0], data.item_ids
    rows = [(user, "nobody's", 9.0), *((user, item, float(-number)) for number, item in enumerate(items))]
    ranking = read_ranking("mine", written(tmp_path, rows, ["user", "item", "score"], "mine.parquet"), data)
    place = int(np.flatnonzero(data.test.user == 0)[0])
    best = ranking.best(data.test, data.num_items, 5, exclude_seen=True)[place]
    expected = [item for item in items if item not in seen(data, place)][:4]
    assert [items[item] for item in best if item < data.num_items] == expected
    other = int(np.flatnonzero(data.test.user != 0)[0])
    assert (ranking.best(data.test, data.num_items, 5, exclude_seen=True)[other] == data.num_items).all()
    assert "1 of unknown items" in ranking.depth(data.test)
    assert "for 1 of" in ranking.depth(data.test)


@pytest.mark.parametrize(
    "columns",
    [("user_id", "item_id", "score"), ("query_id", "item_id", "rating"), ("user_id:token", "item_id:token", "rank")],
)
def test_names_of_other_libraries_are_known(data, tmp_path, columns):
    path = written(tmp_path, [(data.user_ids[0], data.item_ids[0], 1)], list(columns))
    assert len(read_ranking("mine", path, data).items) == 1


def test_ids_that_are_numbers_are_read_as_the_data_write_them(tmp_path):
    source = pd.DataFrame({"user": [1, 1, 1, 2, 2, 2] * 3, "item": [7, 8, 9] * 6, "timestamp": range(18)})
    source.to_csv(tmp_path / "in.csv", index=False)
    source[["item"]].drop_duplicates().assign(title="A film").to_csv(tmp_path / "items.csv", index=False)
    files = {"interactions": str(tmp_path / "in.csv"), "items": str(tmp_path / "items.csv")}
    data = load_data(DataConfig(dataset="csv", **files))
    rows = pd.DataFrame({"user": [1, 2], "item": [7, 8], "rank": [1, 1]})
    rows.to_parquet(tmp_path / "mine.parquet")
    ranking = read_ranking("mine", tmp_path / "mine.parquet", data)
    assert (ranking.unknown_users, ranking.unknown_items) == (0, 0)


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([("u0", "i0", 1), ("u0", "i0", 2)], ["user", "item", "rank"], "item i0 stands twice for user u0"),
        ([("u0", "i0")], ["user", "item"], "has no column rank (or score)"),
        ([("u0", 1)], ["user", "rank"], "has no column item"),
        ([("u0", "i0", "best")], ["user", "item", "rank"], "column rank holds what is no finite number"),
        ([("nobody", "i0", 1)], ["user", "item", "rank"], "none of its users is in the data"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_a_line(data, tmp_path, rows, columns, said):
    with pytest.raises(InputError) as caught:
        read_ranking("mine", written(tmp_path, rows, columns), data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_form_is_refused(data, tmp_path):
    (tmp_path / "mine.xlsx").touch()
    with pytest.raises(InputError, match="is of no known form"):
        read_ranking("mine", tmp_path / "mine.xlsx", data)
    (tmp_path / "mine.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_ranking("mine", tmp_path / "mine.parquet", data)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_are_read_as_everywhere(tmp_path, kind):
    log = pd.DataFrame({"user": ["NA"] * 4 + ["7"] * 4, "item": [1, 2, 4, 3, 3, 2, 4, 1], "timestamp": range(8)})
    frame = data_from_frames(log)
    rows = pd.DataFrame({"user": ["NA", "7"], "item": [3.0, 1.0], "rank": [1, 1]}, index=[5, 9])
    path = tmp_path / f"mine.{kind}"
    rows.to_parquet(path) if kind == "parquet" else rows.astype({"item": int}).to_csv(path, index=False)
    found = read_ranking("mine", path, frame)
    assert (found.unknown_users, found.unknown_items) == (0, 0)
    assert found.ranks(frame.test, frame.num_items, exclude_seen=True).tolist() == [1, 1]


def test_an_index_of_its_own_and_a_trailing_comma_are_one_line(data, tmp_path):
    rows = pd.DataFrame({"user": ["x", "x"], "item": ["a", "b"], "rank": [1, 2]}, index=[7, 9])
    rows.to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(InputError, match="none of its users is in the data \\(the first is 'x'"):
        read_ranking("mine", tmp_path / "mine.parquet", data)
    rows.assign(item="a").to_parquet(tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="item a stands twice for user x"):
        read_ranking("mine", tmp_path / "twice.parquet", data)
    (tmp_path / "mine.csv").write_text("user,item,rank\n7,1,1,9\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_ranking("mine", tmp_path / "mine.csv", data)
