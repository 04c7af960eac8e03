"""A data set written as DLLM2Rec's files, and read back."""

import csv
import pickletools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill.config.data import DataConfig
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.sources.dllm2rec import dllm2rec
from recdistill.errors import InputError
from recdistill.release.dllm2rec_data import write_dllm2rec

GAMES = Path(__file__).parents[3] / "shared" / "data" / "dllm2rec_game"


def read_dllm2rec(folder: str, items: str = "") -> SequenceData:
    return dllm2rec(DataConfig(dataset="dllm2rec", interactions=folder, items=items))


def pairs(samples) -> list[tuple[list[int], int]]:
    return [
        (samples.items[start:end].tolist(), int(samples.items[end]))
        for start, end in zip(samples.start, samples.end, strict=True)
    ]


def sequence_data(histories: list[list[int]], num_items: int) -> SequenceData:
    """Each history's every prefix is a training sample; its whole is validation and test."""
    items = np.concatenate([np.array(history) for history in histories])
    stop = np.cumsum([len(history) for history in histories])
    first = stop - [len(history) for history in histories]
    start = np.concatenate([np.full(e - s - 1, s) for s, e in zip(first, stop, strict=True)])
    end = np.concatenate([np.arange(s + 1, e) for s, e in zip(first, stop, strict=True)])
    user = np.repeat(np.arange(len(histories)), stop - first - 1)
    whole = Samples(items, first, stop - 1, np.arange(len(histories)))
    titles = tuple(f"Title {item}, the {item}" for item in range(num_items))
    ids = tuple(f"id{item}" for item in range(num_items))
    users = tuple(map(str, range(len(histories))))
    return SequenceData(
        "any", "leave-one-out", num_items, titles, ids, users, Samples(items, start, end, user), whole, whole, "ab"
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=11), min_size=1, max_size=6), st.integers(8, 10))
def test_written_rows_are_the_samples_in_their_order(tmp_path, histories, num_items):
    data = sequence_data(histories, num_items)
    write_dllm2rec(tmp_path / "out", data)
    found = read_dllm2rec(str(tmp_path / "out"), str(tmp_path / "out" / "items.csv"))
    assert found.num_items == num_items
    assert found.titles == data.titles
    for part in ("train", "validation", "test"):
        assert pairs(getattr(found, part)) == pairs(getattr(data, part))
    # Once more from what was read is the same to the byte, and the same data.
    write_dllm2rec(tmp_path / "again", found)
    again = read_dllm2rec(str(tmp_path / "again"), str(tmp_path / "again" / "items.csv"))
    assert again.fingerprint == found.fingerprint
    for name in ("train_data.df", "val_data.csv", "test_data.csv", "data_statis.df"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_longer_histories_keep_their_last_items(tmp_path):
    data = sequence_data([list(range(14))], 20)
    write_dllm2rec(tmp_path, data)
    found = read_dllm2rec(str(tmp_path))
    assert pairs(found.train)[-1] == (list(range(3, 13)), 13)
    assert len(found.train) == len(data.train)
    write_dllm2rec(tmp_path, data, length=2)
    assert pairs(read_dllm2rec(str(tmp_path)).train)[-1] == ([11, 12], 13)
    with pytest.raises(InputError, match="length is 0"):
        write_dllm2rec(tmp_path, data, length=0)


def test_the_release_reads_what_is_written(tmp_path):
    """By the calls that its main.py makes, and with names that every pandas and NumPy has."""
    data = sequence_data([[1, 2, 3, 4], [5, 6]], 9)
    (tmp_path / "notes.txt").write_text("mine")
    write_dllm2rec(tmp_path, data)
    statistics = pd.read_pickle(tmp_path / "data_statis.df")
    assert (statistics["seq_size"][0], statistics["item_num"][0]) == (10, 9)
    batch = pd.read_pickle(tmp_path / "train_data.df").sample(n=2, random_state=0)
    assert set(batch.index) <= {0, 1, 2, 3}
    columns = batch.to_dict()
    for row in batch.index:
        history, following = pairs(data.train)[row]
        assert columns["seq"][row] == history + [9] * (10 - len(history))
        assert (columns["len_seq"][row], columns["next"][row]) == (len(history), following)
    with open(tmp_path / "val_data.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"seq": "[5, 9, 9, 9, 9, 9, 9, 9, 9, 9]", "len_seq": "1", "next": "6"}
    opcodes = list(pickletools.genops((tmp_path / "train_data.df").read_bytes()))
    texts = {argument for _, argument, _ in opcodes if isinstance(argument, str)}
    assert texts - {"pandas", "pandas.core.frame"} == {"DataFrame", "seq", "len_seq", "next"}
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(not GAMES.is_dir(), reason="the released Amazon Games are not here")
def test_released_games_are_written_as_they_were(tmp_path):
    for source, name in (("val", "train"), ("val", "val"), ("test", "test")):
        shutil.copy(GAMES / f"{source}_data.csv", tmp_path / f"{name}_data.csv")
    data = read_dllm2rec(str(tmp_path))
    write_dllm2rec(tmp_path / "written", data)
    assert read_dllm2rec(str(tmp_path / "written")).fingerprint == data.fingerprint
