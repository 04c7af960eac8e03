"""The fingerprint changes with everything that was split and with nothing else."""

import numpy as np
import pytest

from recdistill.data.fingerprint import fingerprint
from recdistill.data.samples import Samples

ITEMS = np.array([0, 1, 2, 1, 0])


def parts(items=ITEMS, start=(0, 0), end=(1, 2), last=3):
    samples = Samples(np.asarray(items), np.array(start), np.array(end), np.array([0, 0]))
    return (
        samples,
        samples.subset([1]),
        Samples(np.asarray(items), np.array([0]), np.array([last]), np.array([0])),
    )


BASE = fingerprint(["a", "b", "c"], ["A", "B", "C"], parts())


def test_is_stable_across_versions():
    # Runs of older versions are found by it: change it only together with its version line.
    assert BASE == "b4e18fceafe9f41a070bc326b5cd4396c15fc5a61c34294b5e13c84d46818ecc"


def test_equal_content_is_equal():
    assert fingerprint(("a", "b", "c"), ("A", "B", "C"), parts(items=ITEMS.astype(np.int32))) == BASE


@pytest.mark.parametrize(
    "other",
    [
        (["a", "b", "x"], ["A", "B", "C"], parts()),
        (["a", "b", "c"], ["A", "B", "X"], parts()),
        (["a", "b", "c"], ["A", "BC", ""], parts()),
        (["a", "c", "b"], ["A", "B", "C"], parts()),
        (["a", "b", "c", "A"], ["B", "C"], parts()),
        (["a", "b", "c"], ["A", "B", "C"], parts(items=[0, 1, 2, 1, 1])),
        (["a", "b", "c"], ["A", "B", "C"], parts(start=(0, 1))),
        (["a", "b", "c"], ["A", "B", "C"], parts(end=(1, 3))),
        (["a", "b", "c"], ["A", "B", "C"], parts(last=4)),
        (["a", "b", "c"], ["A", "B", "C"], parts()[::-1]),
    ],
)
def test_other_content_differs(other):
    assert fingerprint(*other) != BASE
