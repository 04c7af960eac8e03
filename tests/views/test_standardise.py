"""The standard map: mean and directions of what it is fitted to, one size for every view."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.views.standardise import Standardiser


def drawn(rows: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(rows, width)) * np.geomspace(1, 0.05, width) + 3).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(3, 30), width=st.integers(1, 30), most=st.integers(1, 40),
    whitening=st.floats(0, 1), seed=st.integers(0, 99),
)  # fmt: skip
def test_fitted_vectors_are_centred_uncorrelated_and_of_total_variance_one(
    rows: int, width: int, most: int, whitening: float, seed: int
) -> None:
    vectors = drawn(rows, width, seed)
    found = Standardiser.fit(vectors, most, whitening)(vectors).astype(np.float64)
    # Of a nearly square table the last directions may be rounding.
    full = min(most, width, rows - 1)
    assert (
        found.shape[1] == full if max(rows, width) >= 2 * min(rows, width) + 2 else full - 2 <= found.shape[1] <= full
    )
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=2e-3)
    covariance = np.cov(found.T, bias=True).reshape(found.shape[1], -1)
    assert np.trace(covariance) == pytest.approx(1, rel=1e-3)
    off = covariance - np.diag(np.diag(covariance))
    assert np.abs(off).max(initial=0) < 2e-3
    assert (np.diff(np.diag(covariance)) < 1e-3).all()


def test_against_the_singular_value_decomposition() -> None:
    vectors = drawn(40, 7)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    for whitening in (0.0, 0.5, 1.0):
        expected = left[:, :4] * size[:4] ** (1 - whitening)
        expected *= np.sqrt(40 / (expected**2).sum())
        found = Standardiser.fit(vectors, 4, whitening)(vectors)
        np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-4)


def test_wide_and_tall_give_the_same() -> None:
    """Directions of zeros added to the vectors change nothing, whichever Gram matrix is decomposed."""
    vectors = drawn(20, 12)
    wide = np.concatenate([vectors, np.zeros((20, 30), dtype=np.float32)], axis=1)
    np.testing.assert_allclose(
        Standardiser.fit(vectors, 8, 0.5)(vectors), Standardiser.fit(wide, 8, 0.5)(wide), atol=1e-4
    )


def test_signs_are_those_of_the_greatest_component() -> None:
    vectors = drawn(30, 6)
    directions = Standardiser.fit(vectors, 6, 0.5).directions
    assert (directions[np.abs(directions).argmax(axis=0), np.arange(6)] > 0).all()
    shuffled = Standardiser.fit(vectors[np.random.default_rng(1).permutation(30)], 6, 0.5).directions
    np.testing.assert_allclose(directions, shuffled, rtol=1e-3, atol=1e-4)


@given(st.floats(0.01, 100), st.floats(0, 1))
def test_the_size_and_place_of_a_view_do_not_count(factor: float, whitening: float) -> None:
    vectors = drawn(15, 5)
    one = Standardiser.fit(vectors, 3, whitening)(vectors)
    moved = (vectors * np.float32(factor) + np.float32(factor)).astype(np.float32)
    np.testing.assert_allclose(one, Standardiser.fit(moved, 3, whitening)(moved), atol=5e-3)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_vectors_that_are_all_the_same_are_refused(rows: int) -> None:
    with pytest.raises(InputError, match="all trained items have the same vector"):
        Standardiser.fit(np.ones((rows, 3), dtype=np.float32), 2, 0.5)
