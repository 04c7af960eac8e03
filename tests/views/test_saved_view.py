"""A saved view is JSON and safetensors, and damage is one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from recdistill.errors import InputError
from recdistill.views.build import build_view
from recdistill.views.saved_view import ARRAYS_FILE, VALUES_FILE, load_view, save_view
from recdistill.views.tfidf import TfidfOptions

TEXTS = ["Toy Story", "Star Wars", "Heat"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    view = build_view("tfidf", TfidfOptions(tfidf_size=2))
    view.fit(TEXTS)
    save_view(view, tmp_path / "view")
    return tmp_path / "view"


def test_what_is_saved_is_read(saved: Path) -> None:
    view = build_view("tfidf", TfidfOptions(tfidf_size=2))
    view.fit(TEXTS)
    loaded = load_view(saved)
    assert loaded.options == view.options
    np.testing.assert_allclose(loaded.vectors([*TEXTS, "Story Wars"]), view.vectors([*TEXTS, "Story Wars"]), atol=1e-6)
    assert json.loads((saved / VALUES_FILE).read_text(encoding="utf-8"))["view"] == "tfidf"


def test_another_reading_than_it_was_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match=r"^views=tfidf: the vectors were made with other size than those at hand"):
        load_view(saved, tfidf_size=3)


@pytest.mark.parametrize("name", [VALUES_FILE, ARRAYS_FILE])
@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"view": "tfidf"}'])
def test_a_damaged_folder_is_one_line(saved: Path, name: str, content: bytes | None) -> None:
    (saved / name).unlink()
    if content is not None:
        (saved / name).write_bytes(content)
    with pytest.raises(InputError, match=r"is no saved view \(.*\); save it again") as caught:
        load_view(saved)
    assert "\n" not in str(caught.value)
