"""TF-IDF against scikit-learn's own, and its directions against a singular value decomposition."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from recdistill.errors import InputError
from recdistill.views import tfidf
from recdistill.views.build import build_view
from recdistill.views.tfidf import TfidfOptions, learn_terms, main_directions

TEXTS = ["The Net, Thriller", "Star Wars, Sci-Fi", "The Empire, Sci-Fi Sci-Fi", "Amélie, Comedy", "Heat, Thriller"]
NEW = ["Wars of the Net", "nothing known", "", "AMELIE"]


@pytest.mark.parametrize(("analyzer", "lengths"), [("word", (1, 1)), ("word", (1, 2)), ("char_wb", (3, 4))])
def test_weights_are_those_of_scikit_learn(analyzer: str, lengths: tuple[int, int]) -> None:
    oracle = TfidfVectorizer(
        analyzer=analyzer, ngram_range=lengths, sublinear_tf=True, strip_accents="unicode",
        token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,
    ).fit(TEXTS)  # fmt: skip
    terms = learn_terms(TEXTS, analyzer, lengths)
    assert terms is not None
    assert list(terms.names) == list(oracle.get_feature_names_out())
    for texts in (TEXTS, NEW):
        np.testing.assert_allclose(terms.weights(texts).toarray(), oracle.transform(texts).toarray(), atol=1e-12)


@pytest.mark.parametrize("exact", [3000, 0])
def test_directions_are_right_singular_vectors(exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "EXACT", exact)
    generator = np.random.default_rng(0)
    for shape in ((30, 50), (50, 30)):
        dense = generator.normal(size=shape) * (generator.random(shape) < 0.3)
        found = main_directions(csr_matrix(dense), 6)
        _, _, right = np.linalg.svd(dense)
        np.testing.assert_allclose(np.abs(found.T @ right[:6].T), np.eye(6), atol=1e-4)
        assert (found[np.abs(found).argmax(axis=0), np.arange(6)] > 0).all()


def test_all_directions_keep_the_angles() -> None:
    """With as many directions as texts nothing of the trained texts is lost."""
    view = build_view("tfidf", TfidfOptions(tfidf_size=500))
    view.fit(TEXTS)
    found = view.vectors(TEXTS)
    weights = np.concatenate([one.weights(TEXTS).toarray() for one in view.learnt], axis=1)
    np.testing.assert_allclose(found @ found.T, weights @ weights.T, atol=1e-5)


def test_a_text_without_a_known_term_has_zeros_and_case_and_accents_do_not_count() -> None:
    view = build_view("tfidf")
    view.fit(TEXTS)
    assert not view.vectors(["zzz", "", " "]).any()
    np.testing.assert_array_equal(view.vectors(["AMELIE, comedy"]), view.vectors(["Amélie, Comedy"]))


def test_texts_without_words_are_refused_and_signs_alone_are_no_words() -> None:
    with pytest.raises(InputError, match="no trained item's text has a word"):
        build_view("tfidf").fit(["", " "])
    view = build_view("tfidf")
    view.fit(["!!!!", "????", "!?!?"])
    assert len(view.learnt) == 1
    assert np.isfinite(view.vectors(["!!??"])).all()


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"^tfidf_characters=2: must be 0 or at least 3"):
        build_view("tfidf", TfidfOptions(tfidf_characters=2))
    with pytest.raises(InputError, match=r"^tfidf_words=0: tfidf_characters is 0, too"):
        build_view("tfidf", TfidfOptions(tfidf_words=0, tfidf_characters=0))
    with pytest.raises(InputError, match="has learnt nothing yet"):
        build_view("tfidf").vectors(TEXTS)
