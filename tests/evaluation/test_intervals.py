import pytest
from scipy.stats import binomtest

from recdistill.evaluation.intervals import wilson_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 17), (943, 943), (61, 943)])
def test_intervals_are_scipys(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)
