"""Zip archives are unpacked whole into their folder and nowhere else, or not at all."""

import io
import stat
import tempfile
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import unpacked as module
from recdistill.data.unpacked import unpacked
from recdistill.errors import InputError

MOST = 10_000


def write(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def inside(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NAMES = st.text("abc.", min_size=1, max_size=4).filter(lambda name: set(name) != {"."} and ".." not in name)
FILES = st.dictionaries(NAMES, st.binary(max_size=200), max_size=5)


@settings(max_examples=50, deadline=None)
@given(FILES, st.dictionaries(NAMES.map(lambda name: f"sub/{name}"), st.binary(max_size=50), max_size=3))
def test_every_file_comes_out_as_it_went_in(top: dict[str, bytes], below: dict[str, bytes]) -> None:
    files = {name: content for name, content in top.items() if name != "sub"} | below
    with tempfile.TemporaryDirectory() as name:
        archive, folder = write(Path(name) / "a.zip", files), Path(name) / "deep" / "model"
        assert unpacked(archive, folder, MOST) == folder
        assert inside(folder) == files
        archive.unlink()
        assert unpacked(archive, folder, MOST) == folder
        assert [path.name for path in folder.parent.iterdir()] == ["model"]  # no temporary folder stays


PARTS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c:", "d\\e"]), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(PARTS)
def test_no_path_leads_out_of_the_folder(parts: list[str]) -> None:
    name = "/".join(parts)
    harmless = all(part in ("a", "b") for part in parts)
    with tempfile.TemporaryDirectory() as place:
        outer = Path(place)
        archive, folder = outer / "a.zip", outer / "x" / "y" / "model"
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as files:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name  # past zipfile's own cleaning of names
            files.writestr(info, b"1")
        archive.write_bytes(content.getvalue())
        before = inside(outer)
        if harmless:
            unpacked(archive, folder, MOST)
            assert inside(folder) == {name: b"1"}
            return
        is_folder = name.endswith("/") and all(part in ("a", "b") for part in name[:-1].split("/"))
        with nullcontext() if is_folder else pytest.raises(InputError, match=r"^[^\n]*$"):
            unpacked(archive, folder, MOST)
        assert inside(outer) == before
        assert folder.exists() == is_folder


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:/out", "a//b", "./a"])
def test_these_paths_are_refused(tmp_path, name):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as files:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        files.writestr(info, b"1")
    with pytest.raises(InputError, match="leads out of it; delete it"):
        unpacked(archive, tmp_path / "model", MOST)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as files:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        files.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="'link' is no plain file"):
        unpacked(tmp_path / "a.zip", tmp_path / "model", MOST)


def test_size_is_counted_while_it_is_written(tmp_path):
    exact = write(tmp_path / "exact.zip", {"a": bytes(MOST - 10), "b": bytes(10)})
    assert sum(map(len, inside(unpacked(exact, tmp_path / "exact", MOST)).values())) == MOST
    bomb = write(tmp_path / "bomb.zip", {"a": bytes(MOST - 10), "b": bytes(11)})
    with pytest.raises(InputError, match="unpacks to more than 10,000 bytes"):
        unpacked(bomb, tmp_path / "model", MOST)
    assert not (tmp_path / "model").exists()


def test_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FILES", 3)
    archive = write(tmp_path / "a.zip", {str(number): b"" for number in range(4)})
    with pytest.raises(InputError, match="holds 4 files, more than 3"):
        unpacked(archive, tmp_path / "model", MOST)


@pytest.mark.parametrize("content", [b"", b"no archive", "half"])
def test_broken_archives_leave_nothing(tmp_path, content):
    whole = write(tmp_path / "whole.zip", {"a": bytes(range(256)) * 20}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:200] if content == "half" else content)
    with pytest.raises(InputError, match=r"a\.zip: is no archive that can be read .*delete it"):
        unpacked(tmp_path / "a.zip", tmp_path / "model", MOST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "whole.zip"]


def test_a_name_that_stands_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as files:
        files.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            files.writestr("a", b"2")
    with pytest.raises(InputError, match="holds 'a' twice"):
        unpacked(tmp_path / "a.zip", tmp_path / "model", MOST)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    archive = write(tmp_path / "a.zip", {"a": b"1"})
    with pytest.raises(InputError, match="cannot be unpacked to") as caught:
        unpacked(archive, tmp_path / "file" / "model", MOST)
    assert "\n" not in str(caught.value)
