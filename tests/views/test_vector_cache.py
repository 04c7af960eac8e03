"""Vectors are found by text, whoever kept them; what is damaged is as if it were not there."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.views.vector_cache import Encoded, VectorCache, digest_rows, text_digest


def encoded(texts: list[str]) -> Encoded:
    number = len(texts)
    vectors = np.array([[len(text), sum(map(ord, text)) % 97] for text in texts], dtype=np.float32).reshape(-1, 2)
    return Encoded(vectors, np.arange(number), np.full(number, 0.5, dtype=np.float32))


def test_what_is_kept_is_found_by_text(tmp_path: Path) -> None:
    cache = VectorCache({"model": "a"}, tmp_path)
    assert cache.read([text_digest("one")]) == {}
    cache.add(["one", "two"], encoded(["one", "two"]))
    cache.add(["three"], encoded(["three"]))
    found = VectorCache({"model": "a"}, tmp_path).read(map(text_digest, ["three", "one", "four"]))
    assert set(found) == {text_digest("three"), text_digest("one")}
    np.testing.assert_array_equal(found[text_digest("three")].vector, encoded(["three"]).vectors[0])
    assert (found[text_digest("one")].tokens, found[text_digest("one")].seconds) == (0, 0.5)


def test_another_identity_is_another_cache(tmp_path: Path) -> None:
    VectorCache({"model": "a"}, tmp_path).add(["one"], encoded(["one"]))
    assert VectorCache({"model": "b"}, tmp_path).read([text_digest("one")]) == {}
    assert (
        VectorCache({"reading": 1, "model": "a"}, tmp_path).folder
        == VectorCache({"model": "a", "reading": 1}, tmp_path).folder
    )


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_file_is_as_if_it_were_not_there(damage: bytes | None, tmp_path: Path) -> None:
    cache = VectorCache({}, tmp_path)
    cache.add(["one"], encoded(["one"]))
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    assert cache.read([text_digest("one")]) == {}
    cache.add(["one"], encoded(["one"]))
    assert set(cache.read([text_digest("one")])) == {text_digest("one")}


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"^cache .*: cannot be written \(.*\); set RECDISTILL_CACHE"):
        VectorCache({}, tmp_path / "file").add(["one"], encoded(["one"]))


def test_it_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    assert VectorCache({}).folder.is_relative_to(tmp_path / "views")


@given(st.lists(st.text(st.characters(), max_size=5), max_size=6))
def test_rows_are_digests(texts: list[str]) -> None:
    rows = digest_rows(texts)
    assert rows.shape == (len(texts), 32)
    assert [row.tobytes() for row in rows] == [text_digest(text) for text in texts]
