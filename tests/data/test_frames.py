"""Frames as data: the same as CSV files of the same content, with ids of any type."""

import datetime

import numpy as np
import pandas as pd
import pytest
from small_data import write_csv

from recdistill.config.data import DataConfig
from recdistill.data.frames import data_from_frames
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


def test_items_without_a_row_come_last_and_have_their_id(said):
    data = data_from_frames(LOG, ITEMS[1:2])
    assert data.item_ids == ("8", "7", "9", "10")
    assert data.titles == ("Eight", "7", "9", "10")
    assert said() == [
        "frame items: warning: 3 of 4 items have no title (3 of them no row), as '7'; their ids are their titles "
        "(missing_titles=refuse refuses them)"
    ]


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (ITEMS[:2], "frame interactions: row 3: unknown item '9' .in 2 rows.; add it to frame items"),
        (ITEMS.assign(title=["Seven", None, "Nine", "Ten"]), "frame items: row 2: title is blank"),
        (ITEMS[["item"]], "frame items: row 1: title is blank"),
        (None, "frame items: row 1: title is blank"),
    ],
)
def test_missing_titles_can_be_refused(items, told):
    with pytest.raises(InputError, match=told):
        data_from_frames(LOG.assign(item=[7, 8, 9, 7, 8, 9, 7, 8]), items, missing_titles="refuse")


def test_fractions_of_a_second_keep_their_order():
    expected = data_from_frames(LOG, ITEMS).fingerprint
    milliseconds = UTC_SECONDS.astype("datetime64[ns, UTC]") + pd.Timedelta("1ms") * np.arange(8)
    for times in (milliseconds, LOG["timestamp"] + 0.25, LOG["timestamp"] / 1000, LOG["timestamp"] * 10**12):
        assert data_from_frames(LOG.assign(timestamp=times), ITEMS).fingerprint == expected


def test_columns_of_other_names(said):
    log = LOG.rename(columns={"user": "customer", "item": "sku", "timestamp": "when"}).assign(item=0)
    items = ITEMS.rename(columns={"title": "name"})
    columns = "user:customer,item:sku,timestamp:when,title:name"
    assert data_from_frames(log, items, columns=columns).fingerprint == data_from_frames(LOG, ITEMS).fingerprint
    for wrong, told in [
        (columns + ",item:ean", "no file has a column 'ean' for item"),
        ("user:buyer", "frame interactions: has no column 'buyer', found customer, sku, when, item"),
    ]:
        with pytest.raises(InputError, match=told):
            data_from_frames(log, items, columns=wrong)


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
        (LOG.assign(item="x"), ITEMS, "frame interactions: none of its items is in frame items: row 1 has 'x'"),
        (LOG.assign(timestamp=[*LOG["timestamp"][:7], None]), ITEMS, "row 8: timestamp is blank"),
        (LOG.assign(timestamp="1.5.2"), ITEMS, "row 1: timestamp '1.5.2' is neither"),
        (LOG.assign(timestamp=[pd.NaT, *UTC_SECONDS[1:]]), ITEMS, "row 1: timestamp is blank"),
        (LOG.assign(item=[[item] for item in LOG["item"]]), ITEMS, "column 'item' holds lists"),
        (LOG, ITEMS.assign(item=[7, 8, 9, 7.0]), "frame items: row 4: item '7' stands twice"),
        (LOG, ITEMS[["title"]], "frame items: has no column 'item', found title"),
        (LOG, ITEMS[:0], "frame items: has no rows"),
        (
            LOG[:2],
            ITEMS,
            r"split=user-holdout needs 3 of a user: leaves no user of frame interactions, where .* 1 interactions",
        ),
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
