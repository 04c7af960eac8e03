import dataclasses
from collections.abc import Callable

import pytest

from recdistill.config import BaselineConfig, DistillConfig
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.esasrec import ESASRecOptions
from recdistill.students.shape import StudentShape, own_options, shape_of, shape_of_values

Shape = Callable[..., StudentShape]


def test_unknown_student_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'bert4rec' is unknown; choose one of caser, ease, .*\(nearest: gru4rec\)"):
        StudentShape("bert4rec", 16, 0.1, 10, "tied")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 0}, "hidden_size=0: must be a whole number"),
        ({"max_length": 0}, "max_length=0: must be"),
        ({"max_length": 2.5}, "max_length=2.5: must be"),
        ({"dropout": 1.0}, "dropout=1.0: must be"),
        ({"dropout": float("nan")}, "dropout=nan: must be"),
        ({"output": "cosine"}, "output=cosine: must be one of tied, linear"),
        ({"options": {"blocks": 1.5}}, "blocks.*1.5.*whole number"),
        ({"options": {"heads": -1}}, "heads=-1: must be at least 1"),
        ({"options": {"filters": 3}}, "filters: sasrec has no such option, but blocks, heads"),
    ],
)
def test_wrong_shape_is_refused(change: dict, said: str, shape: Shape) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(shape("sasrec"), **change)


def test_options_left_out_have_their_defaults() -> None:
    assert StudentShape("esasrec", 16, 0.1, 10, "tied", {"heads": 4}).options == {
        "blocks": 2,
        "heads": 4,
        "expansion": 4,
    }
    assert StudentShape("esasrec", 16, 0.1, 10, "tied", {"heads": 4}).own() == ESASRecOptions(heads=4)


@pytest.mark.parametrize("student", STUDENTS.names())
def test_the_options_give_the_shape_with_what_is_its_own(student: str) -> None:
    config = BaselineConfig(student=student, hidden_size=32, dropout=0.2, max_length=20, output="linear")
    found = shape_of(config)
    assert (found.student, found.hidden_size, found.dropout, found.max_length) == (student, 32, 0.2, 20)
    assert found.output == "linear"
    assert found.options == {name: one.default for name, one in own_options(student).items()}
    assert shape_of_values(found.values()) == found


def test_own_options_are_those_that_were_chosen() -> None:
    assert shape_of(DistillConfig(student="gru4rec", blocks=3)).options == {"blocks": 3}


def test_the_values_of_earlier_versions_held_the_options_of_all_students() -> None:
    values = {"student": "caser", "hidden_size": 8, "blocks": 2, "heads": 1, "dropout": 0.5, "max_length": 9}
    assert shape_of_values(values | {"output": "tied"}) == StudentShape("caser", 8, 0.5, 9, "tied", {"filters": 16})
    with pytest.raises(KeyError, match="output"):
        shape_of_values(values)
