"""MovieLens's own files, of each release that has other ones."""

import gzip
from pathlib import Path

import pytest

from recdistill.config.data import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.load import load_data
from recdistill.data.sources.ml_100k import ml_100k
from recdistill.data.sources.movielens import GENRES, movielens
from recdistill.errors import InputError

ROWS = [("7", "31", "5", 30), ("1", "2", "3.5", 10), ("7", "2", "1", 20)]
FILMS = [("2", "Café, The (1995)"), ("31", 'A "B": C (1999)'), ("4", "Never | seen (2000)".replace(" |", ""))]


def write_100k(folder: Path) -> list[str]:
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    lines = [
        f"{film}|{title}|01-Jan-1995||http://x|{flags(*('Drama', 'Comedy') if film != '4' else ('unknown',))}\n"
        for film, title in FILMS
    ]
    (folder / "u.item").write_bytes("".join(lines).encode("latin-1"))
    (folder / "u1.base").write_text("1\t2\t3\t4\n")
    return ["u.data", "u.item"]


def flags(*genres: str) -> str:
    """The end of a line of u.item."""
    return "|".join("1" if name in genres else "0" for name in GENRES)


def write_1m(folder: Path) -> list[str]:
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in ROWS))
    lines = [f"{film}::{title}::{'Comedy|Drama' if film != '4' else ''}\n" for film, title in FILMS]
    (folder / "movies.dat").write_bytes("".join(lines).encode("latin-1"))
    return ["ratings.dat", "movies.dat"]


def write_20m(folder: Path) -> list[str]:
    rows = "".join(",".join(map(str, row)) + "\r\n" for row in ROWS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\r\n" + rows)
    genres = {film: "Comedy|Drama" if film != "4" else "(no genres listed)" for film, _ in FILMS}
    quoted = ['{},"{}",{}'.format(film, title.replace('"', '""'), genres[film]) for film, title in FILMS]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(quoted) + "\n", encoding="utf-8")
    (folder / "links.csv").write_text("movieId,imdbId\n2,3\n")
    return ["ratings.csv", "movies.csv"]


WRITERS = [write_100k, write_1m, write_20m]


def read(folder: Path, **options: str) -> Interactions:
    return movielens(DataConfig(dataset="movielens", interactions=str(folder), **options))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("form", ["plain", "gzipped", "utf-8"])
def test_each_release_is_the_same_data(tmp_path, said, write, form):
    names = write(tmp_path)
    for name in names if form != "plain" else ():
        content = (tmp_path / name).read_bytes()
        if form == "gzipped":
            (tmp_path / name).unlink()
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        elif name in ("u.item", "movies.dat"):
            (tmp_path / name).write_bytes(content.decode("latin-1").encode())
    log = read(tmp_path)
    assert (log.user_ids, log.item_ids) == (("7", "1"), ("2", "31", "4"))
    assert log.titles == tuple(title for _, title in FILMS)
    assert (log.user.tolist(), log.item.tolist(), log.timestamp.tolist()) == ([0, 1, 0], [1, 0, 0], [30, 10, 20])
    assert dict(log.item_columns) == {
        "year": ("1995", "1999", "2000"),
        "genres": ("Comedy, Drama", "Comedy, Drama", ""),
    }
    first, second = said()
    assert f"{names[0]}{'.gz' * (form == 'gzipped')} (" in first
    assert "MovieLens, text, separated by" in first
    assert first.endswith("3 rows")
    assert "item" in second
    assert "title" in second


def test_movielens_100k_in_its_own_files_is_that_of_the_wheel(tmp_path):
    log = ml_100k(DataConfig())
    rows = zip(log.user, log.item, log.timestamp, strict=True)
    lines = [f"{log.user_ids[user]}\t{log.item_ids[item]}\t3\t{time}\n" for user, item, time in rows]
    (tmp_path / "u.data").write_text("".join(lines))
    films = [f"{film}|{title}|01-Jan-1995||x|0\n" for film, title in zip(log.item_ids, log.titles, strict=True)]
    (tmp_path / "u.item").write_bytes("".join(films).encode("latin-1"))
    data = load_data(DataConfig(dataset="movielens", interactions=str(tmp_path)))
    assert data.fingerprint == load_data(DataConfig()).fingerprint


def test_files_without_genres_have_none(tmp_path):
    write_20m(tmp_path)
    (tmp_path / "movies.csv").write_text("movieId,title\n2,A (1999) \n31,B 2000\n4,C (20001)\n")
    assert dict(read(tmp_path).item_columns) == {"year": ("1999", "", ""), "genres": ("", "", "")}


def test_films_without_a_row_have_their_id(tmp_path):
    write_20m(tmp_path)
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("7,99,5,40\n")
    assert read(tmp_path).titles[-1] == "99"
    with pytest.raises(InputError, match="unknown item '99'"):
        read(tmp_path, missing_titles="refuse")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "movies.csv").unlink(), "holds ratings.csv and no movies.csv; put it there"),
        (lambda folder: (folder / "ratings.csv").unlink(), "holds none of u.data, ratings.dat, ratings.csv; give the"),
        (write_100k, "holds u.data and ratings.csv; keep the files of one release"),
        (
            lambda folder: (folder / "ratings.csv").write_text("user,movieId,timestamp\n1,2,3\n"),
            "ratings.csv: has no column 'userId' as MovieLens has; set dataset=csv for your own files",
        ),
    ],
)
def test_what_is_refused(tmp_path, change, told):
    write_20m(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=told) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"interactions=: dataset=movielens needs a folder with u\.data"):
        movielens(DataConfig(dataset="movielens"))
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="items=x: dataset=movielens has its titles in the folder"):
        read(tmp_path, items="x")
