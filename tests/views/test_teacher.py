"""A teacher's vectors by text: rows of its table, its own for new texts, one line where neither is there."""

import numpy as np
import pytest
import torch

from recdistill.errors import InputError
from recdistill.teachers.outputs import Manifest, TeacherOutputs
from recdistill.views.build import build_view
from recdistill.views.saved_view import load_view, save_view
from recdistill.views.text_teacher import TeacherTable
from recdistill.views.view import ViewContext

TEXTS = ("one", "two", "one")
TABLE = np.arange(6, dtype=np.float32).reshape(3, 2)


def view_of(teacher):
    return build_view("teacher", None, ViewContext(teacher=teacher))


def test_rows_by_text_and_the_first_of_those_that_stand_twice() -> None:
    found = view_of(TeacherTable(TEXTS, TABLE)).vectors(["two", "one", "one"])
    np.testing.assert_array_equal(found, TABLE[[1, 0, 0]])


def test_new_texts_are_asked_for() -> None:
    asked = []

    def encode(texts):
        asked.append(list(texts))
        return np.array([[len(text), -1] for text in texts], dtype=np.float32)

    found = view_of(TeacherTable(TEXTS, TABLE, encode=encode)).vectors(["three", "two", "sixsix"])
    np.testing.assert_array_equal(found, [[5, -1], TABLE[1], [6, -1]])
    assert asked == [["three", "sixsix"]]


def test_new_texts_without_the_teacher_are_one_line() -> None:
    with pytest.raises(InputError, match=r"^views=teacher: 1 new texts, the first 'three', and the teacher is not at"):
        view_of(TeacherTable(TEXTS, TABLE)).vectors(["two", "three"])
    with pytest.raises(InputError, match=r"^views=teacher: no teacher is at hand"):
        view_of(None).check()


@pytest.mark.parametrize("table", [TABLE[:2], TABLE[0], np.full((3, 2), np.nan, dtype=np.float32)])
def test_tables_that_do_not_fit(table: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^views=teacher: the teacher's table"):
        TeacherTable(TEXTS, table)


def test_a_saved_view_knows_its_teacher(tmp_path) -> None:
    view = view_of(TeacherTable(TEXTS, TABLE, {"run": "a"}))
    save_view(view, tmp_path / "view")
    assert load_view(tmp_path / "view").identity() == {"run": "a"}
    same = load_view(tmp_path / "view", ViewContext(teacher=TeacherTable(TEXTS, TABLE, {"run": "a"})))
    np.testing.assert_array_equal(same.vectors(TEXTS), view.vectors(TEXTS))
    with pytest.raises(InputError, match=r"^views=teacher: the vectors were made with other run than those at hand"):
        load_view(tmp_path / "view", ViewContext(teacher=TeacherTable(TEXTS, TABLE, {"run": "b"})))


def outputs(**more) -> TeacherOutputs:
    empty = torch.zeros(0, 2)
    return TeacherOutputs(
        Manifest("data", "llm", 3, 5), torch.zeros(0, dtype=torch.int64), empty.long(), empty, torch.ones(3, 4), **more
    )


def test_the_table_of_teacher_outputs() -> None:
    table = TeacherTable.of_outputs(outputs(item_view=torch.from_numpy(TABLE)), TEXTS, {"run": "a"})
    np.testing.assert_array_equal(view_of(table).vectors(["two"]), TABLE[[1]])
    with pytest.raises(InputError, match=r"keep no vectors of items' texts"):
        TeacherTable.of_outputs(outputs(), TEXTS, {})
