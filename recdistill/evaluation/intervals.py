"""Confidence intervals of shares, and of means over samples that go together."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share seen in ``count`` >= 1 independent draws (Wilson, 1927).

    >>> [round(bound, 3) for bound in wilson_interval(0.5, count=100)]
    [0.404, 0.596]
    """
    squared = NORMAL_QUANTILE**2
    centre = (share + squared / (2 * count)) / (1 + squared / count)
    half = NORMAL_QUANTILE * ((share * (1 - share) + squared / (4 * count)) / count) ** 0.5 / (1 + squared / count)
    # At a share of 0 or 1 its own end is the share, but for rounding.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def clustered_interval(values: NDArray[np.float64], cluster: NDArray[np.int64]) -> tuple[float, float, float]:
    """Mean of values with its 95 % interval, where those of one cluster, as a user, go together.

    The mean is a ratio of sums over clusters, whose variance is that of its linearised residuals (Cochran, 1977, 6.4).

    >>> clustered_interval(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1]))
    (0.5, 0.5, 0.5)
    """
    mean, clusters = float(values.mean()), int(cluster.max()) + 1
    residuals = np.bincount(cluster, weights=values - mean, minlength=clusters)
    half = 0.0
    if clusters > 1:
        half = NORMAL_QUANTILE * math.sqrt(clusters / (clusters - 1) * float((residuals**2).sum())) / len(values)
    return mean, mean - half, mean + half
