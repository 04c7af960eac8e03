"""``dataset=movielens``: GroupLens's own files of any MovieLens, as they are unpacked."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.released_rows import released_folder
from recdistill.data.table_files import say_taken
from recdistill.data.tables import interactions_of_tables
from recdistill.data.text_files import Layout, open_text, read_fields, read_layout, readable
from recdistill.errors import InputError
from recdistill.registry import SOURCES

LATIN = "latin-1"


@dataclass(frozen=True)
class Release:
    """How the files of a release are written.

    Attributes:
        ratings, films: names of the two files.
        separators: of their fields.
        names: of the columns of ratings, and of the first ones of films; None where they have headers.
    """

    ratings: str
    films: str
    separators: tuple[str, str] = (",", ",")
    names: tuple[tuple[str, ...], tuple[str, ...]] | None = None


RATINGS = ("user", "item", "rating", "timestamp")
#: The flags at the end of a line of u.item; the first stands for none.
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
NO_GENRES = "(no genres listed)"
YEAR_IN_TITLE = re.compile(r"\((\d{4})\)\s*$")
RELEASES = (
    Release("u.data", "u.item", ("\t", "|"), (RATINGS, ("item", "title", "release", "video", "address", *GENRES))),
    Release("ratings.dat", "movies.dat", ("::", "::"), (RATINGS, ("item", "title", "genres"))),
    Release("ratings.csv", "movies.csv"),
)
HEADERS = {"user": "userId", "item": "movieId", "timestamp": "timestamp", "title": "title", "genres": "genres"}


@SOURCES.register("movielens")
def movielens(config: DataConfig) -> Interactions:
    """Read the folder ``interactions``: u.data and u.item, ratings.dat and movies.dat, or ratings.csv and movies.csv.

    Each may be gzipped. Items are in the order of the films' file; year (from the title) and genres are their
    further columns. Raises InputError, one line.
    """
    if config.items:
        raise InputError(f"items={config.items}: dataset=movielens has its titles in the folder; leave it out")
    folder = released_folder("movielens", config.interactions, RELEASES[0].ratings)
    found = [(one, file) for one in RELEASES for file in with_gzip(folder / one.ratings) if file.is_file()]
    if not found:
        wanted = ", ".join(one.ratings for one in RELEASES)
        raise InputError(f"{folder}: holds none of {wanted}; give the folder that MovieLens was unpacked to")
    if len(found) > 1:
        raise InputError(f"{folder}: holds {found[0][1].name} and {found[1][1].name}; keep the files of one release")
    release, ratings = found[0]
    films = next((file for file in with_gzip(folder / release.films) if file.is_file()), None)
    if films is None:
        raise InputError(f"{folder}: holds {ratings.name} and no {release.films}; put it there, it has the titles")
    table = read_part(ratings, release, 0, ("user", "item", "timestamp"))
    has_flags = release.names is not None and GENRES[0] in release.names[1]
    items = read_part(films, release, 1, ("item", "title", *(GENRES if has_flags else ("genres",))))
    genres = flagged(items) if has_flags else items["genres"].map(listed)
    items = items[["item", "title"]].assign(year=items["title"].map(year_of_title), genres=genres)
    return interactions_of_tables(table, str(ratings), items, str(films), config.missing_titles)


def year_of_title(title: str) -> str:
    """The year in brackets at the end of a title; empty where there is none.

    >>> year_of_title("Toy Story (1995)")
    '1995'
    """
    found = YEAR_IN_TITLE.search(title)
    return found[1] if found else ""


def flagged(films: pd.DataFrame) -> list[str]:
    """The genres of each film, by the flags in u.item."""
    named = [(name, (films[name] == "1").to_numpy()) for name in GENRES[1:]]
    return [", ".join(name for name, flags in named if flags[film]) for film in range(len(films))]


def listed(genres: str) -> str:
    """Genres between bars, as they are written between commas.

    >>> listed("Action|Sci-Fi"), listed("(no genres listed)")
    ('Action, Sci-Fi', '')
    """
    return "" if genres == NO_GENRES else ", ".join(part.strip() for part in genres.split("|") if part.strip())


def with_gzip(path: Path) -> tuple[Path, Path]:
    """A path, and that of the same file gzipped."""
    return path, path.with_name(f"{path.name}.gz")


def read_part(path: Path, release: Release, part: int, columns: tuple[str, ...]) -> pd.DataFrame:
    """Columns of the ratings (part 0) or the films (part 1) as text."""
    if release.names is None:
        layout = read_layout(path, list(HEADERS.values()))
        used = {column: HEADERS[column] for column in columns if column != "genres" or column in layout.names}
        lacking = [name for name in used.values() if name not in layout.names]
        if lacking:
            raise InputError(
                f"{path}: has no column {lacking[0]!r} as MovieLens has; set dataset=csv for your own files"
            )
    else:
        layout = Layout(
            list(release.names[part]), release.separators[part], lines=0, quoted=False, encoding=encoding_of(path)
        )
        used = {column: column for column in columns}
    table = read_fields(path, layout, used)
    said = {column: name for column, name in used.items() if column not in GENRES}
    say_taken(path, f"MovieLens, {layout.form}", said, len(table))
    return table.reindex(columns=list(columns), fill_value="")


def encoding_of(path: Path) -> str:
    """UTF-8 where the file is, else Latin-1, which the older releases are written in."""
    with readable(path), open_text(path) as file:
        try:
            while file.read(1 << 20):
                pass
        except UnicodeDecodeError:
            return LATIN
    return "utf-8-sig"
