"""A model is loaded only where texts are new, and another one in its place is noticed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_sentence_encoder import write_tiny_encoder

from recdistill.errors import InputError
from recdistill.views.build import build_view
from recdistill.views.saved_view import load_view, save_view
from recdistill.views.sentence import SentenceOptions, SentenceView

TEXTS = ["Toy Story", "Star Wars"]


def view_of(folder: Path) -> SentenceView:
    return build_view("sentence", SentenceOptions(sentence_model=str(folder)))  # type: ignore[return-value]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are loaded."""
    seen: list[str] = []
    load = SentenceView.load
    monkeypatch.setattr(SentenceView, "load", lambda self: seen.append(Path(self.model_name).name) or load(self))
    return seen


def test_kept_vectors_need_no_model(tiny_encoder_folder: Path, loads: list[str]) -> None:
    found = view_of(tiny_encoder_folder).vectors(TEXTS)
    assert len(loads) == 1
    again = view_of(tiny_encoder_folder)
    np.testing.assert_array_equal(again.vectors(TEXTS), found)
    assert again.identity() == view_of(tiny_encoder_folder).identity()
    assert len(loads) == 1
    again.vectors([*TEXTS, "new"])
    assert len(loads) == 2


def test_a_model_that_moved_is_the_same_and_another_one_is_not(tmp_path: Path, loads: list[str]) -> None:
    folder = write_tiny_encoder(tmp_path / "one" / "encoder")
    found = view_of(folder).vectors(TEXTS)
    moved = shutil.copytree(folder, tmp_path / "two" / "encoder")
    np.testing.assert_array_equal(view_of(moved).vectors(TEXTS), found)
    assert len(loads) == 1
    other = write_tiny_encoder(tmp_path / "three" / "encoder", seed=9)
    assert np.abs(view_of(other).vectors(TEXTS) - found).max() > 0.01


def test_a_saved_view_refuses_another_model(tmp_path: Path, loads: list[str]) -> None:
    folder = write_tiny_encoder(tmp_path / "encoder")
    view = view_of(folder)
    view.vectors(TEXTS)
    save_view(view, tmp_path / "saved")
    del loads[:]
    loaded = load_view(tmp_path / "saved")
    assert loads == []
    shutil.rmtree(folder)
    # The old texts' vectors are kept, whatever became of the model.
    np.testing.assert_array_equal(loaded.vectors(TEXTS), view.vectors(TEXTS))
    with pytest.raises(InputError, match=r"^sentence_model=.*: no such folder"):
        loaded.vectors(["new"])
    write_tiny_encoder(folder, seed=9)
    with pytest.raises(InputError, match=r"is another model than the one that made the vectors so far"):
        loaded.vectors(["new"])
    moved = write_tiny_encoder(tmp_path / "elsewhere")
    other = load_view(tmp_path / "saved", sentence_model=str(moved))
    assert other.vectors(["new"]).shape == (1, 24)


def test_the_model_is_given_back(tiny_encoder_folder: Path, loads: list[str]) -> None:
    view = view_of(tiny_encoder_folder)
    view.vectors(TEXTS)
    view.vectors(["more"])
    assert len(loads) == 1
    view.release()
    view.vectors(["still more"])
    assert len(loads) == 2
