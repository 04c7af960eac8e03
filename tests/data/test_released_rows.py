"""Rows that come split, as samples."""

import numpy as np
import pytest

from recdistill.data.released_rows import find_file, released_folder, sequences_of_rows
from recdistill.errors import InputError

PADDED = np.array([[1, 2, 9], [0, 9, 9]]), np.array([2, 1]), np.array([0, 2])
WHOLE = np.array([[2, 2, 1]]), np.array([3]), np.array([0])


def test_every_row_is_a_user_of_its_own():
    data = sequences_of_rows("own", ("A", "B", "C"), {"train": PADDED, "validation": WHOLE, "test": WHOLE})
    assert (data.name, data.split, data.num_items, data.item_ids) == ("own", "released", 3, ("0", "1", "2"))
    assert data.train.items.tolist() == [1, 2, 0, 0, 2]
    assert (data.train.start.tolist(), data.train.end.tolist()) == ([0, 3], [2, 4])
    assert data.validation.targets.tolist() == [0]
    assert [samples.user.tolist() for samples in (data.train, data.validation, data.test)] == [[0, 1], [2], [3]]
    assert data.user_ids == ("train row 0", "train row 1", "validation row 0", "test row 0")


def test_folder_and_file_are_named(tmp_path):
    with pytest.raises(InputError, match=r"interactions=: dataset=own needs a folder with rows.csv"):
        released_folder("own", "", "rows.csv")
    with pytest.raises(InputError, match=r"no such folder; give the folder with rows.csv"):
        released_folder("own", str(tmp_path / "nowhere"), "rows.csv")
    with pytest.raises(InputError, match=r"holds no rows.csv and no rows.df"):
        find_file(released_folder("own", str(tmp_path), "rows.csv"), ("rows.csv", "rows.df"))
    for name in ("rows.df", "rows.csv"):
        (tmp_path / name).write_text("")
        assert find_file(tmp_path, ("rows.csv", "rows.df")).name == name
