"""What is written appears whole or not at all, whoever else writes it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recdistill.whole_files import whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [False, True])
def test_a_file_takes_its_name_when_it_is_complete(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "new" / "file.csv"
    if there:
        target.parent.mkdir()
        target.write_text("old")
    with whole_file(target) as place:
        place.write_text("half")
        assert target.exists() == there
        place.write_text("whole")
    assert target.read_text() == "whole"
    assert names(tmp_path) == ["new", "new/file.csv"]


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path, there: bool) -> None:
    def fill(path: Path) -> None:
        with whole_file(path) as place:
            place.write_text("half")
            raise ValueError("no")

    target = tmp_path / "file.csv"
    if there:
        target.write_text("old")
    with pytest.raises(ValueError, match="no"):
        fill(target)
    assert names(tmp_path) == (["file.csv"] if there else [])
    assert not there or target.read_text() == "old"


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_folder_replaces_what_is_there_or_leaves_it(tmp_path: Path, there: bool, replace: bool) -> None:
    target = tmp_path / "new" / "folder"
    if there:
        target.mkdir(parents=True)
        (target / "old").touch()
    with whole_folder(target, replace=replace) as place:
        (place / "made").touch()
        assert target.exists() == there
    assert names(tmp_path) == ["new", "new/folder", "new/folder/" + ("old" if there and not replace else "made")]


def test_a_folder_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        with whole_folder(folder, replace=True) as place:
            (place / "made").touch()
            raise ValueError("no")

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(ValueError, match="no"):
        fill(tmp_path / "folder")
    assert names(tmp_path) == ["folder", "folder/old"]


def test_of_folders_made_at_once_one_stays_and_none_fails(tmp_path: Path) -> None:
    def make(number: int) -> None:
        with whole_folder(tmp_path / "folder", replace=False) as place:
            for part in ("a", "b"):
                (place / part).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(40)))
    assert names(tmp_path) == ["folder", "folder/a", "folder/b"]
    assert (tmp_path / "folder" / "a").read_text() == (tmp_path / "folder" / "b").read_text()
