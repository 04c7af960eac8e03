"""Checks of a view of an item's text: whoever writes one calls `check_view` on it and learns what to mend."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.build import build_view
from recdistill.views.saved_view import load_view, save_view
from recdistill.views.text_teacher import TextTeacher
from recdistill.views.view import Float32Array, View, ViewContext

#: What a view is fitted to.
TRAINED = (
    "Toy Story (1995), Animation, Comedy",
    "Twelve Monkeys (1995), Drama, Sci-Fi",
    "Star Wars (1977), Action, Sci-Fi",
    "Net, The (1995), Sci-Fi, Thriller",
    "The Empire Strikes Back (1980), Action, Sci-Fi",
    "Fargo (1996), Crime, Drama",
    "Aladdin (1992), Animation, Comedy",
    "Heat (1995), Action, Crime",
)
#: What it has not seen: a sequel, other scripts, signs, a long text, none at all.
NEW = (
    "Return of the Jedi (1983), Action, Sci-Fi",
    "Amélie — Le Fabuleux Destin d'Amélie Poulain",
    "七人の侍 (1954), Drama",
    "🙂 🙃",
    "\u202eabc\x00\t\n",
    "word " * 300,
    "",
    " ",
)
TOLERANCE = 1e-5


def check_view(
    view: str | type[View], options: Any = None, teacher: TextTeacher | None = None, tolerance: float = TOLERANCE
) -> None:
    """Check that a view keeps its contract, on a few texts: finite vectors of one size, each of its text alone.

    Order, company and repetition change no vector; the same texts give the same vectors again, from a cache or without;
    saved and loaded it gives the same; blank texts and other scripts have vectors; texts that differ have vectors that
    differ; what it learns it learns from the texts that it is fitted to. The checks use a cache of their own.

    Args:
        view: the name of a registered view, or the registered class.
        options: instance of its options dataclass; None for its defaults.
        teacher: for a view that reads a teacher's vectors.
        tolerance: largest difference, as a share of the vectors' length, that is still the same: a model in bfloat16
            needs more than the default.

    Raises:
        AssertionError: the view breaks the contract; the message says how, and what to change.
    """
    name = view if isinstance(view, str) else VIEWS.name_of(view)
    kind = VIEWS.part(name)
    assert isinstance(kind, type), f"{name}: is no class; derive it from View"
    assert issubclass(kind, View), f"{name}: is no View; derive it from View"
    for check in (
        _gives_finite_rows,
        _reads_each_text_alone,
        _gives_the_same_again,
        _tells_texts_apart,
        _learns_from_what_it_is_given_alone,
        _is_saved_whole,
        _keeps_no_text_or_state_of_others,
    ):
        with tempfile.TemporaryDirectory() as folder:
            check(_Checked(name, options, teacher, tolerance, Path(folder)))


class _Checked:
    """The view under check: builds it anew, and turns what goes wrong into a sentence."""

    def __init__(self, name: str, options: Any, teacher: TextTeacher | None, tolerance: float, folder: Path) -> None:
        self.name, self.options, self.teacher, self.tolerance, self.folder = name, options, teacher, tolerance, folder
        self.caches = 0

    def context(self) -> ViewContext:
        """A context with an empty cache."""
        self.caches += 1
        return ViewContext(teacher=self.teacher, cache=self.folder / str(self.caches))

    def build(self) -> View:
        try:
            return build_view(self.name, self.options, self.context())
        except InputError as error:
            raise AssertionError(f"{self.name}: {error}") from error
        except TypeError as error:
            raise AssertionError(
                f"{self.name}: cannot be built ({error}); it is built as cls(options, context), and defines vectors "
                "and identity"
            ) from error

    def fitted(self, texts: Sequence[str] = TRAINED) -> View:
        """A new view that has read nothing but these texts, with an empty cache."""
        view = self.build()
        view.fit(texts)
        return view

    def vectors(self, view: View, texts: Sequence[str]) -> Float32Array:
        try:
            found = view.vectors(texts)
        except Exception as error:
            raise AssertionError(
                f"{self.name}: raises {type(error).__name__} for {len(texts)} texts ({error}); any text, also an empty "
                "one, has a vector"
            ) from error
        assert isinstance(found, np.ndarray), f"{self.name}: gives a {type(found).__name__}; give a NumPy array"
        return found

    def same(self, one: Float32Array, other: Float32Array) -> bool:
        """Whether two tables are the same to the tolerance, each row as a share of the longest row's length."""
        if one.shape != other.shape:
            return False
        longest = max(float(np.linalg.norm(one, axis=1).max(initial=0)), 1e-12)
        off = float(np.linalg.norm(one - other, axis=1).max(initial=0))
        return off <= self.tolerance * longest


def _gives_finite_rows(checked: _Checked) -> None:
    name, view = checked.name, checked.fitted()
    texts = [*TRAINED, *NEW]
    found = checked.vectors(view, texts)
    assert found.dtype == np.float32, f"{name}: gives {found.dtype}; give float32"
    assert found.ndim == 2, f"{name}: gives {list(found.shape)} for {len(texts)} texts; give a row for each"
    assert len(found) == len(texts), f"{name}: gives {list(found.shape)} for {len(texts)} texts; give a row for each"
    assert found.shape[1] >= 1, f"{name}: gives vectors of no numbers"
    assert bool(np.isfinite(found).all()), f"{name}: gives NaN or infinity; a blank text may have zeros"
    none = checked.vectors(view, [])
    assert none.shape == (0, found.shape[1]), (
        f"{name}: gives {list(none.shape)} for no texts; give [0, {found.shape[1]}], the size never changes"
    )


def _reads_each_text_alone(checked: _Checked) -> None:
    name, view, texts = checked.name, checked.fitted(), [*TRAINED, *NEW]
    together = checked.vectors(view, texts)
    order = np.random.default_rng(0).permutation(len(texts))
    moved = checked.vectors(checked.fitted(), [texts[place] for place in order])
    assert checked.same(together[order], moved), (
        f"{name}: other vectors where the texts come in another order; a text's vector is of that text alone"
    )
    view = checked.fitted()
    alone = np.concatenate([checked.vectors(view, [text]) for text in texts])
    assert checked.same(together, alone), (
        f"{name}: other vectors where a text comes alone; mask the padding, and use no statistics of a batch"
    )
    twice = checked.vectors(checked.fitted(), [*texts, *texts])
    assert checked.same(np.concatenate([together, together]), twice), (
        f"{name}: a text that comes twice has two vectors; give the same to both"
    )


def _gives_the_same_again(checked: _Checked) -> None:
    name, texts = checked.name, [*TRAINED, *NEW]
    view = checked.fitted()
    first = checked.vectors(view, texts)
    assert np.array_equal(first, checked.vectors(view, texts)), (
        f"{name}: gives other vectors when asked again; draw no random numbers"
    )
    again = checked.vectors(checked.fitted(), texts)
    assert checked.same(first, again), f"{name}: fitted and asked again it gives other vectors; fix what is drawn"
    given = list(TRAINED)
    checked.fitted(given)
    assert given == list(TRAINED), f"{name}: changes the texts that it is fitted to; work on a copy"


def _tells_texts_apart(checked: _Checked) -> None:
    found = checked.vectors(checked.fitted(), TRAINED)
    for row, text in enumerate(TRAINED):
        others = np.delete(found, row, axis=0)
        nearest = float(np.linalg.norm(others - found[row], axis=1).min())
        assert nearest > TOLERANCE * max(float(np.linalg.norm(found[row])), 1e-12), (
            f"{checked.name}: {text!r} has the vector of another text; a view has to tell texts apart"
        )


def _learns_from_what_it_is_given_alone(checked: _Checked) -> None:
    name, kind = checked.name, VIEWS.get(checked.name)
    view = checked.fitted()
    before = checked.vectors(view, TRAINED)
    checked.vectors(view, NEW)
    assert checked.same(before, checked.vectors(view, TRAINED)), (
        f"{name}: other vectors after it has seen new texts; learn in fit alone"
    )
    other = checked.vectors(checked.fitted(TRAINED[:5]), TRAINED)
    if kind.learns:
        assert not checked.same(before, other), f"{name}: says that it learns, but fit changes nothing; learns = False"
    else:
        assert checked.same(before, other), f"{name}: fit changes its vectors; say so by learns = True"


def _is_saved_whole(checked: _Checked) -> None:
    name, view = checked.name, checked.fitted()
    texts = [*TRAINED, *NEW]
    before = checked.vectors(view, texts)
    with tempfile.TemporaryDirectory() as folder:
        save_view(view, folder)
        allowed = {".json", ".safetensors"}
        found = {path.suffix for path in Path(folder).rglob("*") if path.is_file()}
        assert found <= allowed, f"{name}: saves {sorted(found - allowed)}; keep what it learns in state()"
        loaded = load_view(folder, checked.context())
        after = checked.vectors(loaded, texts)
    assert checked.same(before, after), (
        f"{name}: saved and loaded it gives other vectors; give all that fit learns by state, and take it in restore"
    )
    assert loaded.identity() == view.identity(), f"{name}: saved and loaded it has another identity"


def _keeps_no_text_or_state_of_others(checked: _Checked) -> None:
    """Two views in one process are two."""
    one = checked.fitted()
    before = checked.vectors(one, TRAINED)
    checked.vectors(checked.fitted(TRAINED[:4]), NEW)
    assert checked.same(before, checked.vectors(one, TRAINED)), (
        f"{checked.name}: fitting another view changes this one; keep what is learnt in the object"
    )
