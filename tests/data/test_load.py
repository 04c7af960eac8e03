"""From options to samples, for each data set."""

import inspect
from dataclasses import fields
from typing import get_args

import pandas as pd
import pytest

from recdistill.config import DataConfig
from recdistill.data.load import DATASETS, load_data
from recdistill.data.splits import SPLITS
from recdistill.errors import InputError


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Users a, b with four interactions each, c with two; items 0 to 4, the last never seen."""
    rows = [(user, item, 10 * item) for user in "ab" for item in range(4)] + [("c", 0, 1), ("c", 1, 2)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp"]).to_csv(tmp_path / "log.csv", index=False)
    pd.DataFrame({"item": range(5), "title": list("ABCDE")}).to_csv(tmp_path / "items.csv", index=False)
    return {"dataset": "csv", "interactions": str(tmp_path / "log.csv"), "items": str(tmp_path / "items.csv")}


def test_csv_files(files):
    data = load_data(**files, min_interactions=3)
    assert (data.name, data.split, data.num_items) == ("csv", "leave-one-out", 5)
    assert data.user_ids == ("a", "b")
    assert data.titles == tuple("ABCDE")
    assert data.train.targets.tolist() == [1, 1]
    assert data.validation.targets.tolist() == [2, 2]
    assert data.test.targets.tolist() == [3, 3]
    assert data.item_count.tolist() == [0, 2, 0, 0, 0]


def test_a_user_with_too_few_interactions_is_named(files):
    with pytest.raises(InputError, match=r"log.csv: user c has 2 interactions.*set min_interactions=3"):
        load_data(**files)


def test_users_of_three_interactions_leave_no_training_sample(files):
    log = pd.DataFrame({"user": ["a"] * 3, "item": [0, 1, 2], "timestamp": [1, 2, 3]})
    log.to_csv(files["interactions"], index=False)
    with pytest.raises(InputError, match=r"leaves no training sample"):
        load_data(**files)


def test_movielens_and_the_fingerprint():
    data = load_data()
    assert (data.name, data.num_items, len(data.user_ids)) == ("ml-100k", 1682, 943)
    assert [len(samples) for samples in (data.train, data.validation, data.test)] == [97_171, 943, 943]
    assert data.item_count.sum() == 97_171
    assert load_data().fingerprint == data.fingerprint
    others = [load_data(split="chronological"), load_data(max_users=30), load_data(min_interactions=21)]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert others[1].user_ids == data.user_ids[:30]
    assert others[1].num_items == 1682


def test_dllm2rec(tmp_path):
    rows = pd.DataFrame({"seq": [[1, 2, 3]], "len_seq": [2], "next": [0]})
    for name in ("train", "val", "test"):
        rows.to_csv(tmp_path / f"{name}_data.csv", index=False)
    options = {"dataset": "dllm2rec", "interactions": str(tmp_path)}
    assert load_data(**options).num_items == 3
    for name, value in (("split", "chronological"), ("max_users", 3), ("min_interactions", 3)):
        with pytest.raises(InputError, match=f"{name}={value}: dllm2rec files are split already"):
            load_data(**options, **{name: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset": "ml-1m"}, "dataset=ml-1m: must be one of ml-100k, csv, dllm2rec"),
        ({"split": "random"}, "split=random: must be one of leave-one-out, chronological"),
        ({"interactions": "log.csv"}, "set dataset=csv"),
        ({"dataset": "csv"}, "dataset=csv needs"),
    ],
)
def test_impossible_options(options, said):
    with pytest.raises(InputError, match=said) as caught:
        load_data(**options)
    assert "\n" not in str(caught.value)


def test_options_and_defaults_are_those_of_the_configuration():
    specs = {spec.name: spec for spec in fields(DataConfig)}
    for name, parameter in inspect.signature(load_data).parameters.items():
        assert parameter.default == specs[name].default
    assert get_args(specs["dataset"].type) == DATASETS
    assert get_args(specs["split"].type) == tuple(SPLITS)
