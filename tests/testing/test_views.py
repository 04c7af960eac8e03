"""Every view keeps its contract, and views that break it are told how."""

from pathlib import Path

import numpy as np
import pytest
import torch
from embeddings_server import Server, serving
from registered_parts import registries_restored
from tiny_llm import write_tiny_llm
from tiny_sentence_encoder import write_tiny_encoder

from recdistill.registry import VIEWS
from recdistill.teachers.ilora.base_llm import compute_dtype
from recdistill.testing import check_view
from recdistill.testing.views import NEW, TRAINED
from recdistill.views.endpoint import EndpointOptions
from recdistill.views.llm import LLMOptions
from recdistill.views.sentence import SentenceOptions
from recdistill.views.text_teacher import TeacherTable
from recdistill.views.tfidf import TfidfOptions
from recdistill.views.view import View

BF16 = compute_dtype(torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("options", [{}, {"tfidf_words": 1}, {"tfidf_words": 0}, {"tfidf_characters": 0}], ids=str)
def test_tfidf(options: dict) -> None:
    check_view("tfidf", TfidfOptions(**options))


@pytest.mark.parametrize("reading", ["echo", "mean", "prompt"])
def test_llm(reading: str, tmp_path: Path) -> None:
    options = LLMOptions(view_llm=str(write_tiny_llm(tmp_path / "llm")), llm_reading=reading)
    check_view("llm", options, tolerance=0.02 if BF16 else 1e-5)


def test_sentence(tmp_path: Path) -> None:
    check_view("sentence", SentenceOptions(sentence_model=str(write_tiny_encoder(tmp_path / "encoder"))))


def test_teacher() -> None:
    texts = [*TRAINED, *NEW]
    table = np.random.default_rng(0).normal(size=(len(texts), 12)).astype(np.float32)
    check_view("teacher", teacher=TeacherTable(texts, table, {"run": "of a test"}))


def test_endpoint() -> None:
    with serving(Server()) as address:
        check_view(
            "endpoint", EndpointOptions(view_endpoint=address, view_endpoint_model="hashed", view_endpoint_batch=3)
        )


def test_all_views_are_checked_here() -> None:
    assert set(VIEWS.names()) == {"endpoint", "llm", "sentence", "teacher", "tfidf"}


class Sound(View):
    """Letters counted: a view that keeps the contract."""

    def vectors(self, texts):
        return np.array([[text.lower().count(letter) for letter in "aeiostrn"] for text in texts] or np.zeros((0, 8)),
                        dtype=np.float32)  # fmt: skip

    def identity(self):
        return {"letters": "aeiostrn"}


class Double(Sound):
    def vectors(self, texts):
        return super().vectors(texts).astype(np.float64)


class Batchwise(Sound):
    def vectors(self, texts):
        found = super().vectors(texts)
        return found - found.mean(axis=0) if len(found) else found


class Drawn(Sound):
    def vectors(self, texts):
        return super().vectors(texts) + np.random.default_rng().normal(size=(len(texts), 8)).astype(np.float32)


class Blind(Sound):
    def vectors(self, texts):
        return np.ones((len(texts), 3), dtype=np.float32)


class FailsOnBlank(Sound):
    def vectors(self, texts):
        return super().vectors([text[0] + text for text in texts])


class NotFinite(Sound):
    def vectors(self, texts):
        return super().vectors(texts) / np.array([[len(text)] for text in texts], dtype=np.float32).reshape(-1, 1)


class Secret(Sound):
    """Learns, and says neither so nor what."""

    size = 1.0

    def fit(self, texts):
        self.size = float(len(texts))

    def vectors(self, texts):
        return super().vectors(texts) * np.float32(self.size)


class Forgets(Secret):
    learns = True


class LearnsLater(Sound):
    seen = 0

    def vectors(self, texts):
        self.seen = max(self.seen, *(len(text) for text in texts), 0) if texts else self.seen
        return super().vectors(texts) + np.float32(self.seen)


class Shared(Sound):
    learns = True
    sizes: list = [1]  # noqa: RUF012

    def fit(self, texts):
        self.sizes[0] = len(texts)

    def vectors(self, texts):
        return super().vectors(texts) * np.float32(self.sizes[0])

    def state(self):
        return {"size": self.sizes[0]}, {}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Double, "gives float64; give float32"),
        (Batchwise, "alone"),
        (Drawn, "is of that text alone|random numbers"),
        (Blind, "has the vector of another text"),
        (FailsOnBlank, "any text, also an empty one"),
        (NotFinite, "NaN or infinity"),
        (Secret, "say so by learns = True"),
        (Forgets, "give all that fit learns by state"),
        (LearnsLater, "alone|learn in fit alone"),
        (Shared, "keep what is learnt in the object|other vectors"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_view_is_told_why(kind: type[View], said: str) -> None:
    with registries_restored():
        VIEWS.register("mine")(kind)
        with pytest.raises(AssertionError, match=said):
            check_view("mine")


def test_a_view_of_ones_own() -> None:
    with registries_restored():
        VIEWS.register("mine")(Sound)
        check_view("mine")
        check_view(Sound)
