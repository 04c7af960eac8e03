"""From options to samples, for each data set."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from registered_parts import registries_restored

from recdistill.config import DataConfig
from recdistill.config.option import option
from recdistill.data.interactions import Interactions
from recdistill.data.load import load_data, read_data
from recdistill.data.samples import Samples
from recdistill.data.splits.leave_one_out import leave_one_out
from recdistill.errors import InputError
from recdistill.registry import SOURCES, SPLITS


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Users a, b with four interactions each, c with two; items 0 to 4, the last never seen."""
    rows = [(user, item, 10 * item) for user in "ab" for item in range(4)] + [("c", 0, 1), ("c", 1, 2)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp"]).to_csv(tmp_path / "log.csv", index=False)
    pd.DataFrame({"item": range(5), "title": list("ABCDE")}).to_csv(tmp_path / "items.csv", index=False)
    return {"dataset": "csv", "interactions": str(tmp_path / "log.csv"), "items": str(tmp_path / "items.csv")}


def test_csv_files(files):
    data = load_data(DataConfig(**files, min_interactions=3))
    assert (data.name, data.split, data.num_items) == ("csv", "user-holdout", 5)
    assert data.user_ids == ("a", "b")
    assert data.titles == tuple("ABCDE")
    assert data.train.targets.tolist() == [1, 1]
    assert data.validation.targets.tolist() == [2, 2]
    assert data.test.targets.tolist() == [3, 3]
    assert data.item_count.tolist() == [0, 2, 0, 0, 0]


def test_users_with_too_few_interactions_for_the_split_are_left_out(files, said):
    data = load_data(DataConfig(**files))
    assert data.user_ids == ("a", "b")
    why = "split=user-holdout needs 3 of a user"
    assert said()[-1] == f"{files['interactions']}: left out 1 of 3 users, with 2 of 10 interactions ({why})"
    assert data.fingerprint == load_data(DataConfig(**files, min_interactions=3)).fingerprint
    chronological = load_data(DataConfig(**files, split="chronological"))
    assert chronological.user_ids == ("a", "b", "c")


def test_items_and_users_of_too_few_interactions_are_left_out(files):
    data = load_data(DataConfig(**files, min_item_interactions=3, min_interactions=2, split="chronological"))
    assert (data.item_ids, data.titles) == (("0", "1"), ("A", "B"))
    core = load_data(DataConfig(**files, k_core=2))
    assert (core.item_ids, core.user_ids) == (("0", "1", "2", "3"), ("a", "b"))
    with pytest.raises(InputError, match=r"k_core=3: leaves no user of .*log.csv, where the most active has 4"):
        load_data(DataConfig(**files, k_core=3))


@pytest.mark.parametrize("dataset", ["ml-100k", "ml-latest-small", "movielens", "ilora", "dllm2rec"])
def test_columns_are_named_for_files_of_your_own_alone(dataset):
    with pytest.raises(InputError, match=f"columns=user:u: {dataset} files have names of their own; leave it out"):
        load_data(DataConfig(dataset=dataset, columns="user:u"))


def test_users_of_three_interactions_leave_no_training_sample(files):
    log = pd.DataFrame({"user": ["a"] * 3, "item": [0, 1, 2], "timestamp": [1, 2, 3]})
    log.to_csv(files["interactions"], index=False)
    with pytest.raises(InputError, match=r"leaves no training sample"):
        load_data(DataConfig(**files))


def test_movielens_and_the_fingerprint():
    data = load_data(DataConfig())
    assert (data.name, data.num_items, len(data.user_ids)) == ("ml-100k", 1682, 943)
    assert [len(samples) for samples in (data.train, data.validation, data.test)] == [82_591, 8_233, 8_233]
    assert data.item_count.sum() == 82_591
    assert load_data(DataConfig()).fingerprint == data.fingerprint
    left_one_out = load_data(DataConfig(split="leave-one-out"))
    assert [len(samples) for samples in (left_one_out.train, left_one_out.validation)] == [97_171, 943]
    # Runs of older versions are found by it.
    assert left_one_out.fingerprint == "ffc93ba049771254e20f20b00d6ea7ffade05f78bc95271727d9a8ea12f50d0b"
    others = [
        load_data(DataConfig(split="chronological")),
        load_data(DataConfig(max_users=30)),
        load_data(DataConfig(min_interactions=21)),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert others[1].user_ids == data.user_ids[:30]
    assert others[1].num_items == 1682


def test_dllm2rec(tmp_path):
    rows = pd.DataFrame({"seq": [[1, 2, 3]], "len_seq": [2], "next": [0]})
    for name in ("train", "val", "test"):
        rows.to_csv(tmp_path / f"{name}_data.csv", index=False)
    options = {"dataset": "dllm2rec", "interactions": str(tmp_path)}
    assert load_data(DataConfig(**options)).num_items == 3
    others = (("max_users", 3), ("min_interactions", 3), ("min_item_interactions", 3), ("k_core", 3))
    for name, value in (("split", "chronological"), *others):
        with pytest.raises(InputError, match=f"{name}={value}: dllm2rec files are split already"):
            load_data(DataConfig(**options, **{name: value}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"dataset": "ml-1m"},
            "dataset=ml-1m: must be one of csv, dllm2rec, ilora, ml-100k, ml-latest-small, movielens, recbole",
        ),
        ({"split": "random"}, "split=random: must be one of chronological, leave-one-out, user-holdout"),
        ({"interactions": "log.csv"}, "set dataset=csv"),
        ({"dataset": "csv"}, "dataset=csv needs"),
    ],
)
def test_impossible_options(options, said):
    with pytest.raises(InputError, match=said) as caught:
        load_data(DataConfig(**options))
    assert "\n" not in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class LastOptions:
    held_out: int = option(1, "items of a user that are for test", least=1)


@dataclass(frozen=True, kw_only=True)
class RingOptions:
    ring_users: int = option(2, "users of the ring", least=1)


def ring(config: DataConfig, options: RingOptions) -> Interactions:
    """Each user goes once round six items."""
    user = np.repeat(np.arange(options.ring_users), 6)
    return Interactions(
        user,
        np.tile(np.arange(6), options.ring_users),
        np.arange(len(user)),
        tuple(f"u{user}" for user in range(options.ring_users)),
        tuple("012345"),
        tuple("ABCDEF"),
        f"ring of {config.dataset}",
    )


def last(log: Interactions, options: LastOptions) -> tuple[Samples, Samples, Samples]:
    """Of sequences of six items the last ones for test, the one before for validation."""
    start = np.flatnonzero(log.timestamp % 6 == 0)

    def ending(*ends: int) -> Samples:
        count = len(ends)
        return Samples(
            log.item, np.repeat(start, count), (start[:, None] + ends).ravel(), np.repeat(log.user[start], count)
        )

    border = 6 - options.held_out
    return ending(*range(1, border - 1)), ending(border - 1), ending(*range(border, 6))


def test_a_part_gets_its_own_options():
    with registries_restored():
        SOURCES.register("ring", options=RingOptions)(ring)
        SPLITS.register("last", options=LastOptions)(last)
        data = load_data(DataConfig(dataset="ring", split="last", ring_users=3, held_out=2))
        assert (data.name, data.split, data.user_ids) == ("ring", "last", ("u0", "u1", "u2"))
        assert data.train.targets.tolist() == [1, 2] * 3
        assert data.validation.targets.tolist() == [3] * 3
        assert data.test.targets.tolist() == [4, 5] * 3
        defaults = load_data(DataConfig(dataset="ring", split="last"))
        assert defaults.test.targets.tolist() == [5, 5]
    assert "ring" not in SOURCES


def twelve(config) -> Interactions:
    """Twelve walks of six steps over six items."""
    return ring(config, RingOptions(ring_users=12))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda log: None, "gives a NoneType; give recdistill.Interactions"),
        (
            lambda log: replace(log, timestamp=log.timestamp * 1.0),
            "timestamp is float64 [72]; give a NumPy array of int64",
        ),
        (lambda log: replace(log, user=log.user.tolist()), "user is list; give a NumPy array of int64"),
        (lambda log: replace(log, item=log.item + 1), "item holds numbers outside 0 .. 5, the places in item_ids"),
        (lambda log: replace(log, item=log.item - 1), "item holds numbers outside 0 .. 5, the places in item_ids"),
        (lambda log: replace(log, user=log.user[1:]), "user, item, timestamp have 71, 72, 72 numbers"),
        (lambda log: replace(log, user_ids=tuple(range(12))), "user_ids holds 0, a int; give text, by str()"),
        (lambda log: replace(log, item_ids=("i0",) * 6), "item_ids holds 'i0' twice; give each an id of its own"),
        (lambda log: replace(log, titles=log.titles[1:]), "6 items have 5 titles; give each item one"),
        (lambda log: replace(log, item_columns={"genre": ("x",)}), "item_columns genre has 1 texts of 6 items"),
        (lambda log: log.users, "(test_load.py:"),
    ],
)
def test_what_a_source_of_ones_own_gives_is_checked(change, said):
    with registries_restored():
        SOURCES.register("wrong")(lambda config: change(twelve(config)))
        with pytest.raises(InputError, match=r"^data source 'wrong'") as caught:
            load_data(DataConfig(dataset="wrong"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_of_any_size_and_lists_of_ids_are_taken():
    with registries_restored():
        SOURCES.register("plain")(twelve)
        SOURCES.register("small")(
            lambda config: replace(
                log := twelve(config),
                user=log.user.astype("int32"),
                item=log.item.astype("uint8"),
                titles=[*log.titles],
            )
        )
        found = [load_data(DataConfig(dataset=name)) for name in ("plain", "small")]
    assert found[0].fingerprint == found[1].fingerprint
    assert found[1].train.items.dtype == np.int64


def all_parts_alike(log: Interactions) -> tuple[Samples, ...]:
    return (last(log, LastOptions())[0],) * 3


def in_place(log: Interactions) -> tuple[Samples, ...]:
    parts = last(replace(log, user=log.user.copy(), item=log.item.copy()), LastOptions())
    for column in (log.user, log.item, log.timestamp):
        column.fill(0)
    return parts


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (lambda log: None, ": gives NoneType; give a tuple of three Samples"),
        (lambda log: last(log, LastOptions())[:2], ": gives Samples, Samples; give a tuple of three Samples"),
        (all_parts_alike, ": an interaction is a target of two parts; what is tested must not be trained on"),
        (
            lambda log: tuple(replace(one, items=one.items + 1) for one in last(log, LastOptions())),
            ": a part holds items outside 0 .. 5",
        ),
        (
            lambda log: tuple(replace(one, user=one.user - 1) for one in last(log, LastOptions())),
            ": a part holds users",
        ),
        (lambda log: {}["user"], " (test_load.py:"),
        (lambda: None, " (test_load.py:"),
    ],
)
def test_what_a_split_of_ones_own_gives_is_checked(split, said):
    with registries_restored():
        SOURCES.register("ring")(twelve)
        SPLITS.register("wrong")(split)
        with pytest.raises(InputError) as caught:
            load_data(DataConfig(dataset="ring", split="wrong"))
    assert str(caught.value).startswith(f"split 'wrong'{said}")


def test_a_split_of_ones_own_gets_numbers_whose_sums_do_not_overflow(files):
    """Those of files have half the width."""
    given = []

    def watched(interactions):
        given.append(interactions)
        return leave_one_out(interactions)

    SPLITS.register("watched")(watched)
    config = DataConfig(**files, min_interactions=3, split="watched")
    found = load_data(config)
    assert {read_data(config).user.dtype, read_data(config).item.dtype} == {np.dtype("int32")}
    assert {given[0].user.dtype, given[0].item.dtype, found.train.items.dtype} == {np.dtype("int64")}


def test_a_split_of_ones_own_that_works_in_place_changes_nothing_else():
    with registries_restored():
        SOURCES.register("ring")(twelve)
        SPLITS.register("last", options=LastOptions)(last)
        SPLITS.register("in-place")(in_place)
        found = [load_data(DataConfig(dataset="ring", split=name)) for name in ("last", "in-place")]
    assert found[0].fingerprint == found[1].fingerprint
    assert np.array_equal(found[0].new_test, found[1].new_test)
