"""A text is read once; a killed run goes on; a batch is of texts of about a length."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from registered_parts import registries_restored

from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views import frozen_view
from recdistill.views.build import build_view
from recdistill.views.frozen_view import FrozenView
from recdistill.views.view import Cost, ViewContext


class Counting(FrozenView):
    """Length of a text; it counts what it reads, and may be stopped."""

    batch_texts = 4
    batch_characters = 40
    stop_after = 10**9
    given = 1.0

    def __init__(self, options, context) -> None:
        super().__init__(options, context)
        self.read: list[list[str]] = []

    def identity(self):
        return {"of": "a test"}

    def encode(self, texts):
        if len(self.read) >= self.stop_after:
            raise KeyboardInterrupt
        self.read.append(list(texts))
        vectors = np.array([[len(text), self.given] for text in texts], dtype=np.float32)
        return vectors, np.array([len(text) for text in texts])


@pytest.fixture
def build(tmp_path: Path) -> Iterator:
    with registries_restored():
        VIEWS.register("counting")(Counting)
        yield lambda: build_view("counting", None, ViewContext(cache=tmp_path))


TEXTS = ["a" * (1 + place % 12) + chr(98 + place) for place in range(30)]


def test_each_text_is_read_once_whoever_asks(build) -> None:
    first, second = build(), build()
    found = first.vectors([*TEXTS, TEXTS[0]])
    assert sorted(text for batch in first.read for text in batch) == sorted(TEXTS)
    np.testing.assert_array_equal(second.vectors(TEXTS), found[:-1])
    assert second.read == []
    second.vectors([*TEXTS, "new"])
    assert second.read == [["new"]]


def test_batches_are_by_length_and_within_limits(build) -> None:
    view = build()
    batches = list(view.batches(TEXTS))
    lengths = [len(text) for batch in batches for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(text for batch in batches for text in batch) == sorted(TEXTS)
    assert all(len(batch) <= 4 and len(batch) * len(batch[0]) <= 40 for batch in batches)
    assert list(view.batches(["x" * 1000, "y"])) == [["x" * 1000], ["y"]]
    assert list(view.batches([])) == []


def test_a_killed_run_goes_on(build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_view, "KEEP_SECONDS", 0.0)
    killed, after = build(), build()
    killed.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        killed.vectors(TEXTS)
    found = after.vectors(TEXTS)
    assert len(killed.read) == 3
    assert not {text for batch in killed.read for text in batch} & {text for batch in after.read for text in batch}
    np.testing.assert_array_equal(found[:, 0], [len(text) for text in TEXTS])


def test_the_cost_is_that_of_the_first_time(build) -> None:
    view = build()
    assert view.cost(TEXTS) == Cost(0, 0.0)
    view.vectors(TEXTS)
    cost = build().cost([*TEXTS, *TEXTS])
    assert cost.tokens == sum(map(len, TEXTS))
    assert cost.seconds > 0
    assert build().cost(TEXTS[:2]).tokens == sum(map(len, TEXTS[:2]))


def test_what_is_no_vector_is_refused_and_not_kept(build) -> None:
    view = build()
    view.given = float("nan")
    with pytest.raises(InputError, match=r"^views=counting: the model gives NaN"):
        view.vectors(TEXTS)
    assert build().cost(TEXTS) == Cost(0, 0.0)


def test_no_texts_have_the_size_of_any(build) -> None:
    assert build().vectors([]).shape == (0, 2)
