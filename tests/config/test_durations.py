"""Durations as a person writes them."""

import pytest

from recdistill.config import TeacherConfig
from recdistill.config.durations import seconds_of, spoken
from recdistill.errors import InputError


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), (" 2 h ", 7200)])
def test_times_are_read(text, seconds):
    assert seconds_of("time_budget", text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "0m", "-5m", "20 minutes", "1d"])
def test_another_text_is_refused_by_the_name_of_the_option(text):
    with pytest.raises(InputError, match=f"time_budget={text}"):
        TeacherConfig(time_budget=text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")]
)
def test_times_are_told(seconds, text):
    assert spoken(seconds) == text
