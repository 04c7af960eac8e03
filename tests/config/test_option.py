"""An option's values: which are taken, in which spelling, and what is said of the others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recdistill.config import BaselineConfig, DataConfig
from recdistill.errors import InputError


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("epochs", np.int64(3), 3),
        ("seed", np.uint8(7), 7),
        ("learning_rate", np.float32(0.5), 0.5),
        ("learning_rate", np.int32(1), 1.0),
        ("blocks", np.int16(1), 1),
        ("mask_seen", np.bool_(False), False),
        ("interactions", Path("log.csv"), "log.csv"),
    ],
)
def test_numbers_of_numpy_and_paths_are_taken_as_pythons(name, given, taken):
    config = BaselineConfig(**{name: given})
    assert config.value(name) == taken
    assert type(config.value(name)) is type(taken)
    assert type(config.values()[name]) is type(taken)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("epochs", "3", "epochs='3': must be a whole number"),
        ("epochs", 1.0, "epochs=1.0: must be a whole number, as 1"),
        ("epochs", 1.5, "epochs=1.5: must be a whole number"),
        ("epochs", float("nan"), "epochs=nan: must be a whole number"),
        ("epochs", True, "epochs=True: must be a finite number"),
        ("epochs", None, "epochs=None: must be a whole number"),
        ("learning_rate", "0.1", "learning_rate='0.1': must be a finite number"),
        ("learning_rate", np.True_, "learning_rate=.*True.*: must be a finite number"),
        ("mask_seen", "false", "mask_seen='false': must be true or false"),
        ("mask_seen", 1, "mask_seen=1: must be true or false"),
        ("interactions", 3, "interactions=3: must be text"),
        ("student", 3, "student=3: must be the name of one of "),
        ("student", pd.DataFrame({"a": range(9)}), "student=a 0 0 .*: must be the name of one of "),
    ],
)
def test_a_value_of_another_type_is_shown_as_it_is_written_in_python(name, given, said):
    with pytest.raises(InputError, match=f"^{said}") as caught:
        BaselineConfig(**{name: given})
    assert len(str(caught.value).splitlines()) == 1


def test_two_spellings_of_a_number_are_one_option():
    assert DataConfig(max_users=np.int64(5)) == DataConfig(max_users=5)
