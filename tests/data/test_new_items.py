"""Drawn items are new: nothing of training and no history knows them, and all else is as without the draw."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interaction_logs import log_of, triples

from recdistill.config import DataConfig
from recdistill.data.fingerprint import fingerprint
from recdistill.data.interactions import Interactions
from recdistill.data.load import load_data, split_data
from recdistill.data.new_items import draw_new_items, hold_out_items, without_items
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError

SPLITS = ("user-holdout", "leave-one-out", "chronological")


def drawn_log(seed: int, users: int = 12, items: int = 15) -> Interactions:
    """Users of 8 to 40 interactions with few items, repeats and ties of time among them."""
    random = np.random.default_rng(seed)
    rows = [
        (user, int(random.integers(items)), int(random.integers(30)))
        for user in range(users)
        for _ in range(random.integers(8, 41))
    ]
    return log_of(rows)


def parts_of(data: SequenceData) -> tuple[Samples, Samples, Samples]:
    return data.train, data.validation, data.test


def expected_part(samples: Samples, new: set[int], own: set[int]) -> list[tuple[int, list[int], int]]:
    """The samples of a part with the items left out, by a loop."""
    found = []
    for user, history, target in triples(samples):
        left = [item for item in history if item not in new]
        if left and (target not in new or target in own):
            found.append((user, left, target))
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    split=st.sampled_from(SPLITS),
    share=st.sampled_from([0.05, 0.15, 0.3, 0.5]),
    draw=st.integers(0, 5),
)
def test_drawn_items_leave_training_and_all_histories_and_nothing_else_changes(seed, split, share, draw):
    log = drawn_log(seed)
    options = {"split": split, "new_items": share, "new_items_seed": draw}
    data, whole = split_data(log, DataConfig(**options)), split_data(log, DataConfig(split=split))
    new = {*data.new_validation.tolist(), *data.new_test.tolist()}
    assert len(new) == len(data.new_validation) + len(data.new_test)
    assert not new & set(data.train.targets.tolist())
    for samples in parts_of(data):
        _, history = samples.seen(np.arange(len(samples)))
        assert not new & set(history.tolist())
        assert not new & set(samples.items.tolist())
    owned = (set(), set(data.new_validation.tolist()), set(data.new_test.tolist()))
    for found, before, own in zip(parts_of(data), parts_of(whole), owned, strict=True):
        assert triples(found) == expected_part(before, new, own)
    assert data.item_count[sorted(new)].sum() == 0
    assert not data.trained[sorted(new)].any()
    again = split_data(log, DataConfig(**options))
    assert (again.fingerprint, data.num_items) == (data.fingerprint, whole.num_items)
    assert data.fingerprint != whole.fingerprint


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=3, max_size=80),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 100),
)
def test_a_draw_is_disjoint_of_items_with_five_interactions_and_half_as_large_for_validation(counts, share, seed):
    counts = np.array(counts)
    eligible = int((counts >= 5).sum())
    if eligible < 3:
        with pytest.raises(InputError, match=f"new_items={share}: only {eligible} items have 5 interactions"):
            draw_new_items(counts, share, seed)
        return
    validation, test = draw_new_items(counts, share, seed)
    assert len(test) == max(1, round(share * eligible))
    assert len(validation) == max(1, len(test) // 2)
    assert not set(validation) & set(test)
    assert counts[validation].min() >= 5
    assert counts[test].min() >= 5
    assert all((np.diff(part) > 0).all() for part in (validation, test))


def test_the_draw_has_a_seed_of_its_own():
    drawn = [draw_new_items(np.full(50, 5), 0.3, seed)[1].tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert "seed" not in DataConfig().values()


def test_without_a_draw_all_items_without_a_training_target_are_new():
    data = split_data(drawn_log(3, items=60), DataConfig(split="chronological"))
    assert data.new_validation.tolist() == data.new_test.tolist() == np.flatnonzero(~data.trained).tolist() != []
    assert all(samples.target is None for samples in parts_of(data))


def test_the_same_samples_with_another_draw_are_other_data():
    log = drawn_log(0)
    parts = parts_of(split_data(log, DataConfig()))
    held = hold_out_items(parts, np.array([3]), np.array([4, 5]), 15)
    texts = (log.item_ids, log.titles)
    draws = [(np.array([3]), np.array([4, 5])), (np.array([3, 4]), np.array([5])), ()]
    assert len({fingerprint(*texts, held, drawn) for drawn in draws}) == 3
    moved = (held[0], held[1], replace(held[2], target=(held[2].targets + 1) % 15))
    assert fingerprint(*texts, moved) != fingerprint(*texts, held)


def test_parts_with_items_of_their_own_are_held_out_each_by_its_own():
    one = Samples(np.array([0, 1, 2, 3]), np.array([0, 0]), np.array([2, 3]), np.array([0, 0]))
    other = Samples(np.array([9, 1, 4, 1]), np.array([0, 1]), np.array([1, 2]), np.array([1, 1]))
    train, validation, test = hold_out_items((one, one, other), np.array([9]), np.array([1]), 10)
    assert triples(train) == [(0, [0], 2), (0, [0, 2], 3)]
    assert triples(validation) == triples(train)
    assert triples(test) == []
    assert train.items is validation.items
    assert without_items(other.items, np.arange(10) == 1)[0].tolist() == [9, 4]


def test_no_copy_of_histories_is_made():
    data = split_data(drawn_log(1), DataConfig(new_items=0.2))
    assert data.train.items is data.validation.items is data.test.items


@pytest.mark.parametrize(("name", "value"), [("new_items", 0.1), ("new_items_seed", 2), ("holdout", 0.2)])
def test_files_that_came_split_refuse_it_in_a_line(tmp_path, name, value):
    rows = pd.DataFrame({"seq": [[1, 2, 3]], "len_seq": [2], "next": [0]})
    for part in ("train", "val", "test"):
        rows.to_csv(tmp_path / f"{part}_data.csv", index=False)
    options = {"dataset": "dllm2rec", "interactions": str(tmp_path)}
    with pytest.raises(InputError, match=f"^{name}={value}: dllm2rec files are split already .*; leave it out$"):
        load_data(DataConfig(**options, **{name: value}))
    # Runs of before have the default of then among their options.
    data = load_data(DataConfig(**options, split="leave-one-out"))
    assert data.new_test.tolist() == np.flatnonzero(~data.trained).tolist()


@pytest.mark.parametrize(("value", "said"), [(-0.1, "at least 0"), (0.6, "at most 0.5")])
def test_an_impossible_share_is_refused(value, said):
    with pytest.raises(InputError, match=f"new_items={value}: must be {said}"):
        DataConfig(new_items=value)


def test_a_draw_that_leaves_no_sample_is_refused():
    log = log_of([(user, item, item) for user in range(6) for item in range(3)])
    with pytest.raises(InputError, match=r"^log.csv: split=user-holdout leaves no training sample"):
        split_data(log, DataConfig(new_items=0.5))
    log = log_of([(user, item, item) for user in range(6) for item in range(4)])
    with pytest.raises(InputError, match=r"^log.csv: new_items=0.5 leaves no training sample"):
        split_data(log, DataConfig(new_items=0.5, new_items_seed=3))


def test_movielens():
    options = DataConfig(new_items=0.15)
    data, again = load_data(options), load_data(options)
    assert (len(data.new_validation), len(data.new_test)) == (101, 202)
    assert (data.num_items, data.fingerprint) == (1682, again.fingerprint)
    new = np.isin(data.test.targets, data.new_test)
    assert 500 < new.sum() < 2_000
    assert data.fingerprint != load_data(DataConfig(new_items=0.15, new_items_seed=2)).fingerprint
