"""Durations as a person writes and reads them."""

import re

from recdistill.errors import InputError

UNITS = {"s": 1, "m": 60, "h": 3600}
WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*([smh])")


def seconds_of(name: str, text: str) -> float:
    """Seconds of a text as ``90s``, ``20m`` or ``1.5h``. Raises InputError, naming the option, where it is none.

    >>> seconds_of("time_budget", "20m")
    1200.0
    """
    found = WRITTEN.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise InputError(f"{name}={text}: must be a time above 0 as 90s, 20m or 1.5h")
    return float(found[1]) * UNITS[found[2]]


def spoken(seconds: float) -> str:
    """Seconds in a unit that fits.

    >>> spoken(0.4), spoken(75), spoken(600), spoken(9000)
    ('1 s', '75 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
