"""Frames as data: the same as CSV files of the same content, with ids of any type."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import write_csv

from recdistill.config.data import DataConfig
from recdistill.data.frames import data_from_frames, text
from recdistill.data.load import load_data
from recdistill.errors import InputError

LOG = pd.DataFrame(
    {
        "user": ["ann", "bob"] * 4,
        "item": [7, 8, 9, 7, 8, 9, 10, 10],
        "timestamp": [30, 10, 20, 20, 10, 30, 40, 40],
    }
)
ITEMS = pd.DataFrame({"item": [7, 8, 9, 10], "title": ["Seven", "Eight", "Nine", "Ten"]})


@pytest.mark.parametrize("options", [{}, {"split": "chronological"}, {"min_interactions": 8, "max_users": 20}])
def test_a_frame_is_the_same_data_as_its_csv_file(tmp_path, options):
    files = write_csv(tmp_path)
    from_files = load_data(DataConfig(**files, **options))
    as_text = [pd.read_csv(files[name], dtype=str) for name in ("interactions", "items")]
    as_types = [pd.read_csv(files[name]) for name in ("interactions", "items")]
    for interactions, items in (as_text, as_types):
        data = data_from_frames(interactions, items, **options)
        assert data.fingerprint == from_files.fingerprint
        assert (data.name, data.split) == ("frames", from_files.split)
        assert (data.user_ids, data.item_ids, data.titles) == (
            from_files.user_ids,
            from_files.item_ids,
            from_files.titles,
        )


def test_by_hand():
    data = data_from_frames(LOG, ITEMS)
    assert (data.user_ids, data.item_ids) == (("ann", "bob"), ("7", "8", "9", "10"))
    assert data.titles == ("Seven", "Eight", "Nine", "Ten")
    assert data.train.items.tolist() == [1, 2, 0, 3, 1, 0, 2, 3]
    assert data.test.targets.tolist() == [3, 3]


@pytest.mark.parametrize(
    "kind", ["int32", "uint8", "float32", "float64", "Int64", "Float64", "str", "object", "category"]
)
def test_ids_of_any_type_become_the_same_text(kind):
    changed = LOG.assign(item=LOG["item"].astype(kind))
    data = data_from_frames(changed, ITEMS.assign(item=ITEMS["item"].astype("int64")))
    assert data.fingerprint == data_from_frames(LOG, ITEMS).fingerprint


def test_ids_that_are_neither_numbers_nor_text():
    days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"])
    log = LOG.assign(
        item=LOG["item"].map(dict(zip([7, 8, 9, 10], days, strict=True))),
        user=LOG["user"].map({"ann": True, "bob": False}),
    )
    data = data_from_frames(log)
    assert data.user_ids == ("True", "False")
    assert data.item_ids[:2] == ("2024-01-01 00:00:00", "2024-01-02 00:00:00")


UTC_SECONDS = pd.to_datetime(LOG["timestamp"], unit="s", utc=True)


@pytest.mark.parametrize(
    "timestamps",
    [
        LOG["timestamp"].astype("float64"),
        LOG["timestamp"].astype("uint64"),
        LOG["timestamp"].astype("Int64"),
        LOG["timestamp"].astype(str),
        UTC_SECONDS,
        UTC_SECONDS.dt.tz_localize(None),
        UTC_SECONDS.dt.tz_convert("Asia/Tokyo"),
        UTC_SECONDS.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        UTC_SECONDS.astype(object),
        pd.Series([moment.to_pydatetime() for moment in UTC_SECONDS], dtype=object),
        LOG["timestamp"].map(lambda day: datetime.date(2024, 1, 1) + datetime.timedelta(days=day)),
    ],
    ids=str,
)
def test_timestamps_of_every_kind(timestamps):
    expected = data_from_frames(LOG, ITEMS)
    assert data_from_frames(LOG.assign(timestamp=timestamps), ITEMS).fingerprint == expected.fingerprint


def test_large_whole_numbers_stay_exact():
    # As float64 the two last ones would be equal, and keep the order of the file.
    late = 2**62
    log = pd.DataFrame({"user": ["a"] * 4, "item": list("wxyz"), "timestamp": [1, 2, late + 1, late]})
    assert data_from_frames(log).test.targets.tolist() == [2]
    with pytest.raises(InputError, match=r"frame interactions: row 3: timestamp '4\.61.*' is no whole number"):
        data_from_frames(log.astype({"timestamp": "float64"}))


def test_items_that_have_no_title_have_their_id():
    expected = ("7", "8", "9", "10")
    assert data_from_frames(LOG, ITEMS[["item"]]).titles == expected
    some = ITEMS.assign(title=["Seven", None, np.nan, "  "])
    assert data_from_frames(LOG, some).titles == ("Seven", "8", "9", "10")


def test_without_items_they_are_those_of_the_interactions():
    data = data_from_frames(LOG.assign(item=LOG["item"].map({7: "d", 8: "a", 9: "c", 10: "b"})))
    assert data.item_ids == data.titles == ("d", "a", "c", "b")
    assert data.num_items == 4


def test_labels_other_columns_and_the_frames_themselves_stay():
    log = LOG.assign(rating=5).set_axis([3] * len(LOG))
    before = log.copy(), ITEMS.copy()
    assert data_from_frames(log, ITEMS).fingerprint == data_from_frames(LOG, ITEMS).fingerprint
    pd.testing.assert_frame_equal(log, before[0])
    pd.testing.assert_frame_equal(ITEMS, before[1])


@pytest.mark.parametrize(
    ("log", "items", "said"),
    [
        (LOG.drop(columns="timestamp"), ITEMS, "frame interactions: has no column 'timestamp', found user, item;"),
        (LOG[["user", "item", "timestamp", "item"]], ITEMS, "frame interactions: has 2 columns 'item'"),
        (LOG[:0], ITEMS, "frame interactions: has no rows"),
        (LOG.assign(user=["ann"] * 7 + [None]), ITEMS, "frame interactions: row 8: user is blank"),
        (LOG.assign(item=[*LOG["item"][:7], np.nan]), ITEMS, "frame interactions: row 8: item is blank"),
        (LOG.assign(item=[*LOG["item"][:7], 11]), ITEMS, "frame interactions: row 8: unknown item '11' .*frame items"),
        (LOG.assign(timestamp=[*LOG["timestamp"][:7], None]), ITEMS, "row 8: timestamp is blank"),
        (LOG.assign(timestamp=LOG["timestamp"] + 0.5), ITEMS, "row 1: timestamp '30.5' is no whole number"),
        (LOG.assign(timestamp=UTC_SECONDS + pd.Timedelta("1ms")), ITEMS, "row 1: .* has a fraction of a second"),
        (LOG.assign(timestamp=[pd.NaT, *UTC_SECONDS[1:]]), ITEMS, "row 1: timestamp is blank"),
        (LOG.assign(item=[[item] for item in LOG["item"]]), ITEMS, "column 'item' holds lists"),
        (LOG, ITEMS.assign(item=[7, 8, 9, 7.0]), "frame items: row 4: item '7' stands twice"),
        (LOG, ITEMS[["title"]], "frame items: has no column 'item', found title"),
        (LOG, ITEMS[:0], "frame items: has no rows"),
        (LOG[:2], ITEMS, "frame interactions: user ann has 1 interactions"),
    ],
)
def test_mistakes_are_one_line(log, items, said):
    with pytest.raises(InputError, match=said) as caught:
        data_from_frames(log, items)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset": "csv"}, "dataset=csv: the data are the frames; leave it out"),
        ({"split": "random"}, "split=random: must be one of"),
        ({"minimum": 3}, "minimum: there is no such option"),
    ],
)
def test_options_that_are_not_allowed(options, said):
    with pytest.raises(InputError, match=said):
        data_from_frames(LOG, ITEMS, **options)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"),
        (7.0, "7"),
        (np.float32(7), "7"),
        (-0.0, "0"),
        (7.5, "7.5"),
        (2.0**53, "9007199254740992.0"),
        (" 007 ", "007"),
        (Decimal("7"), "7"),
        (np.int64(7), "7"),
        (True, "True"),
        (float("inf"), "inf"),
    ],
)
def test_text_of_a_value(value, expected):
    assert text(value) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), unique=True))
def test_whole_floats_stay_apart(values):
    assert len({text(float(value)) for value in values}) == len(values)
