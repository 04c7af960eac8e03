"""MovieLens-100K as the wheel has it."""

import numpy as np
import pytest

from recdistill.config.data import DataConfig
from recdistill.data.sources.ml_100k import genres, ml_100k, title_with_year
from recdistill.errors import InputError


def test_counts_and_first_row():
    log = ml_100k(DataConfig())
    assert len(log) == 100_000
    assert (len(log.user_ids), len(log.item_ids)) == (943, 1682)
    assert (log.user_ids[0], log.item_ids[log.item[0]], log.timestamp[0]) == ("196", "242", 881250949)
    assert log.timestamp.dtype == np.int64
    assert np.array_equal(np.unique(log.item), np.arange(1682))
    assert np.array_equal(np.unique(log.user), np.arange(943))


def test_titles():
    titles = dict(zip(ml_100k(DataConfig()).item_ids, ml_100k(DataConfig()).titles, strict=True))
    assert titles["1"] == "Toy Story (1995)"
    assert titles["12"] == "Usual Suspects, The (1995)"
    assert titles["1412"] == "Land Before Time III: The Time of the Great Giving (1995)"
    assert titles["1633"] == "Á köldum klaka (Cold Fever) (1994)"
    without_year = [item for item, title in titles.items() if not title.endswith(")")]
    assert without_year == ["267"]


@pytest.mark.parametrize(
    ("title", "year", "expected"),
    [
        ("Heat", "1995", "Heat (1995)"),
        ("Heat (1995)", "1995", "Heat (1995)"),
        ("Heat", "", "Heat"),
        ("Heat", "V", "Heat"),
    ],
)
def test_the_year_is_added_once(title, year, expected):
    assert title_with_year(title, year) == expected


def test_years_and_genres():
    log = ml_100k(DataConfig())
    assert list(log.item_columns) == ["year", "genres"]
    films = dict(zip(log.item_ids, zip(*log.item_columns.values(), strict=True), strict=True))
    assert films["1"] == ("1995", "Animation, Children's, Comedy")
    assert films["267"] == ("", "")  # unknown
    assert all(year == "" or 1900 < int(year) < 2000 for year, _ in films.values())
    named = {genre for _, text in films.values() for genre in text.split(", ") if genre}
    assert len(named) == 18
    assert {"Film-Noir", "Sci-Fi"} <= named
    assert genres("unknown") == genres("") == ""


def test_files_are_refused():
    with pytest.raises(InputError, match="ml-100k: reads no interactions"):
        ml_100k(DataConfig(items="items.csv"))
