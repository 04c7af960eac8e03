"""DLLM2Rec's files: small ones by hand, the released Amazon Games where they are at hand."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recdistill.config.data import DataConfig
from recdistill.data.sequences import SequenceData
from recdistill.data.sources.dllm2rec import dllm2rec
from recdistill.errors import InputError

GAMES = Path(__file__).parents[4] / "shared" / "data" / "dllm2rec_game"
TRAIN = pd.DataFrame({"seq": [[1, 2, 5], [2, 3, 4], [0, 5, 5]], "len_seq": [2, 3, 1], "next": [3, 1, 0]})
LATER = pd.DataFrame({"seq": [[4, 4, 5]], "len_seq": [2], "next": [2.0]})


def write(folder: Path, train=TRAIN, validation=LATER, test=LATER, pickled=True) -> str:
    if pickled:
        train.to_pickle(folder / "train_data.df")
    else:
        train.to_csv(folder / "train_data.csv", index=False)
    validation.to_csv(folder / "val_data.csv", index=False)
    test.to_csv(folder / "test_data.csv", index=False)
    return str(folder)


def read_dllm2rec(folder: str, items: str = "") -> SequenceData:
    return dllm2rec(DataConfig(dataset="dllm2rec", interactions=folder, items=items))


def pairs(samples) -> list[tuple[list[int], int]]:
    return [
        (samples.items[start:end].tolist(), int(samples.items[end]))
        for start, end in zip(samples.start, samples.end, strict=True)
    ]


@pytest.mark.parametrize("pickled", [True, False])
def test_small_files_by_hand(tmp_path, pickled):
    data = read_dllm2rec(write(tmp_path, pickled=pickled))
    assert data.num_items == data.padding_id == 5
    assert pairs(data.train) == [([1, 2], 3), ([2, 3, 4], 1), ([0], 0)]
    assert pairs(data.validation) == pairs(data.test) == [([4, 4], 2)]
    assert data.titles == ("item 0", "item 1", "item 2", "item 3", "item 4")
    assert data.item_count.tolist() == [1, 1, 0, 1, 0]
    assert [samples.user.tolist() for samples in (data.train, data.validation, data.test)] == [
        [0, 1, 2],
        [3],
        [4],
    ]
    assert data.user_ids[3] == "validation row 0"
    assert data.split == "released"


def test_pickled_and_csv_have_one_fingerprint(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = read_dllm2rec(write(tmp_path / "a", pickled=True))
    second = read_dllm2rec(write(tmp_path / "b", pickled=False))
    assert first.fingerprint == second.fingerprint
    TRAIN.assign(next=[3, 1, 1]).to_csv(tmp_path / "b" / "train_data.csv", index=False)
    assert read_dllm2rec(str(tmp_path / "b")).fingerprint != first.fingerprint


def test_without_padding_the_largest_item_tells_the_size(tmp_path):
    full = pd.DataFrame({"seq": [[1, 2, 6]], "len_seq": [3], "next": [3]})
    assert read_dllm2rec(write(tmp_path, full, full, full)).num_items == 7


def test_titles_in_any_order(tmp_path):
    folder = write(tmp_path)
    items = tmp_path / "items.csv"
    items.write_text("item,genres,title\n4,x|y,E\n0,,A\n2,z,C\n1,,B\n3,,D\n")
    assert dict(read_dllm2rec(folder, str(items)).item_columns) == {"genres": ("", "", "z", "", "x|y")}
    assert read_dllm2rec(folder, str(items)).titles == ("A", "B", "C", "D", "E")
    items.write_text("item,title\n4,E\n0,A\n2,C\n1,B\n3,D\n5,F\n6,G\n")
    with pytest.raises(InputError, match=r"item '5' is none of 0 .. 4 \(2 such\); leave it out"):
        read_dllm2rec(folder, str(items))


def test_titles_that_are_missing_are_made_of_the_id(tmp_path, said):
    folder = write(tmp_path)
    items = tmp_path / "items.csv"
    items.write_text("item;title\n4;E\n0;\n1;B\n3;D\n")
    assert read_dllm2rec(folder, str(items)).titles == ("item 0", "B", "item 2", "D", "E")
    assert read_dllm2rec(folder).item_columns == {}
    assert said() == [
        f"read {tmp_path} (dllm2rec): train_data.df 3 rows, val_data.csv 1 rows, test_data.csv 1 rows; 5 items",
        f"read {items} (text, separated by semicolons): item, title; 4 rows",
        f"{items}: warning: 2 of 5 items have no title, as item 0; it is made of their id "
        "(missing_titles=refuse refuses them)",
    ]
    with pytest.raises(InputError, match=r"has no title of item 0 \(2 of 5 missing\)"):
        dllm2rec(DataConfig(dataset="dllm2rec", interactions=folder, items=str(items), missing_titles="refuse"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"len_seq": [0, 3, 1]}, r"row 1: len_seq=0"),
        ({"len_seq": [2, 4, 1]}, r"row 2: len_seq=4"),
        ({"next": [3, 5, 0]}, "item 5 is not below the padding id 5"),
        ({"next": [3, 1.5, 0]}, "next holds 1.5"),
        ({"next": [3, -1, 0]}, "next holds -1"),
        ({"next": [3, None, 0]}, "next holds nan"),
        ({"seq": [[1, 2, 5], [2, 3], [0, 5, 5]]}, "row 2: seq has 2 items, row 1 has 3"),
        ({"seq": [[1, 2, 5], [2, 3, 4], "no list"]}, "row 3: seq is 'no list'"),
        ({"seq": [[1, 2, 5], [2, 3, 4], [0, 9, 5]]}, "one padding id"),
        ({"seq": [[1, 2, 5], [2, [3], 4], [0, 5, 5]]}, r"row 2: seq is '\[2, \[3\], 4\]'"),
    ],
)
@pytest.mark.parametrize("pickled", [True, False])
def test_mistakes_in_the_rows(tmp_path, changes, said, pickled):
    with pytest.raises(InputError, match=said) as caught:
        read_dllm2rec(write(tmp_path, train=TRAIN.assign(**changes), pickled=pickled))
    assert "train_data" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(InputError, match=r"val_data.csv: has no column 'next', found seq, len_seq"):
        read_dllm2rec(write(tmp_path, validation=LATER.drop(columns="next")))


def test_an_empty_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"test_data.csv: holds no rows"):
        read_dllm2rec(write(tmp_path, test=LATER[:0]))
    (tmp_path / "test_data.csv").write_text("")
    with pytest.raises(InputError, match=r"test_data.csv: cannot be read"):
        read_dllm2rec(str(tmp_path))


def test_the_statistics_file_tells_the_size(tmp_path):
    full = pd.DataFrame({"seq": [[1, 2, 6]], "len_seq": [3], "next": [3]})
    folder = write(tmp_path, full, full, full)
    pd.DataFrame({"seq_size": [3], "item_num": [9]}).to_pickle(tmp_path / "data_statis.df")
    assert read_dllm2rec(folder).num_items == 9
    pd.DataFrame({"seq_size": [3], "item_num": [5]}).to_pickle(tmp_path / "data_statis.df")
    with pytest.raises(InputError, match="item 6 is not below the padding id 5"):
        read_dllm2rec(folder)
    pd.DataFrame({"seq_size": [3], "item_num": [7]}).to_pickle(tmp_path / "data_statis.df")
    write(tmp_path)
    with pytest.raises(InputError, match=r"test_data\.csv pads with 5, data_statis\.df says item_num 7"):
        read_dllm2rec(folder)
    for wrong in (pd.DataFrame({"seq_size": [3]}), pd.DataFrame({"item_num": [5, 5]})):
        wrong.to_pickle(tmp_path / "data_statis.df")
        with pytest.raises(InputError, match="must hold one row with item_num"):
            read_dllm2rec(folder)


def test_rows_are_taken_in_the_order_of_their_labels(tmp_path):
    """The release looks its teacher files up by label: ``all_candidate[batch.index]``."""
    expected = read_dllm2rec(write(tmp_path))
    moved = read_dllm2rec(write(tmp_path, train=TRAIN.iloc[[2, 0, 1]]))
    assert pairs(moved.train) == pairs(expected.train)
    assert moved.fingerprint == expected.fingerprint
    for labels in ([5, 0, 1], [0, 0, 1], ["b", "c", "a"]):
        other = read_dllm2rec(write(tmp_path, train=TRAIN.set_axis(labels)))
        assert pairs(other.train) == pairs(expected.train)


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(InputError, match="set interactions=<folder>"):
        read_dllm2rec("")
    with pytest.raises(InputError, match="no such folder"):
        read_dllm2rec(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"holds no train_data.df and no train_data.csv"):
        read_dllm2rec(str(tmp_path))


@pytest.mark.skipif(not GAMES.is_dir(), reason="the released Amazon Games are not here")
def test_released_games(tmp_path):
    with pytest.raises(InputError, match=r"holds no train_data.df"):
        read_dllm2rec(str(GAMES))
    # The release's training file is not at hand: its validation rows stand in.
    for source, name in (("val", "train"), ("val", "val"), ("test", "test")):
        shutil.copy(GAMES / f"{source}_data.csv", tmp_path / f"{name}_data.csv")
    data = read_dllm2rec(str(tmp_path))
    assert data.num_items == 17_408
    assert (len(data.validation), len(data.test)) == (14_980, 14_980)
    history, length = data.test.windows_of([0, 1], 10, data.padding_id)
    assert history[1].tolist() == [7525, 4942, 7899, 7575, 2500, 4573, 13061, 17408, 17408, 17408]
    assert length.tolist() == [10, 7]
    assert data.test.targets[:2].tolist() == [16713, 196]
    raw = pd.read_csv(GAMES / "test_data.csv")
    assert np.array_equal(data.test.end - data.test.start, raw["len_seq"])
    assert np.array_equal(data.test.targets, raw["next"].astype(np.int64))
