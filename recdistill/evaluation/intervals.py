"""Confidence intervals of shares and means over samples that go together, as those of a user do."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

LEVEL = 0.975  # of the upper bound, the lower one is as far on its side
NORMAL_QUANTILE = float(ndtri(LEVEL))


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """95 % interval of a share seen in ``count`` > 0 independent draws (Wilson, 1927).

    >>> [round(bound, 3) for bound in wilson_interval(0.5, count=100)]
    [0.404, 0.596]
    """
    squared = NORMAL_QUANTILE**2
    centre = (share + squared / (2 * count)) / (1 + squared / count)
    half = NORMAL_QUANTILE * ((share * (1 - share) + squared / (4 * count)) / count) ** 0.5 / (1 + squared / count)
    # At a share of 0 or 1 its own end is the share, but for rounding.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def share_interval(hits: ArrayLike, cluster: ArrayLike) -> tuple[float, float, float]:
    """Share of hits with its 95 % interval, where samples of one cluster, as a user, go together.

    Wilson's of the `effective_count`; where each sample is a cluster of its own, of the count. One cluster alone tells
    no interval: it is 0 to 1.

    >>> [round(bound, 3) for bound in share_interval([1, 0] * 50, range(100))]
    [0.5, 0.404, 0.596]
    >>> [round(bound, 3) for bound in share_interval([1] * 50 + [0] * 50, np.arange(100) // 10)]
    [0.5, 0.202, 0.798]

    Args:
        hits: N truth values, or 0 and 1; N >= 1.
        cluster: whose each is, N labels.
    """
    values = np.asarray(hits, dtype=np.float64)
    members = np.unique(np.asarray(cluster), return_inverse=True)[1]
    share = float(values.mean())
    if members.max() == 0:
        return share, 0.0, 1.0
    return share, *wilson_interval(share, effective_count(values, members))


def effective_count(hits: NDArray[np.float64], members: NDArray[np.int64]) -> float:
    """How many independent draws tell as much of a share as these hits, of two clusters or more.

    As Korn and Graubard (1998) have it: the count over the design effect, which is at least 1 here, and fewer where few
    clusters tell the variance. A share of 0 or 1 shows no variance: all samples of a cluster then count as alike.
    """
    count, clusters, share = len(hits), int(members.max()) + 1, float(hits.mean())
    if clusters == count:
        return float(count)
    if 0 < share < 1:
        own = count / (count - 1) * float(((hits - share) ** 2).sum())
        design = max(1.0, clustered_squares(hits, members) / own)
    else:
        design = float((np.bincount(members).astype(np.float64) ** 2).sum()) / count
    return count / design * float(stdtrit(count - 1, LEVEL) / stdtrit(clusters - 1, LEVEL)) ** 2


def clustered_interval(
    values: ArrayLike, cluster: ArrayLike, within: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, float]:
    """Mean of values with its 95 % interval, where those of one cluster, as a user, go together.

    The mean is a ratio of sums over clusters, whose variance is that of its linearised residuals (Cochran, 1977, 6.4).
    The interval stays ``within`` what the values can be. Where all of them are at the ends of that, as hits are 0 or 1,
    it is that of a share. One cluster alone tells no interval: it is all of ``within``.

    >>> [round(bound, 3) for bound in clustered_interval([0.5, 0.6, 0.8, 0.9], [0, 0, 1, 2], within=(0, 1))]
    [0.7, 0.207, 1]
    >>> [round(bound, 3) for bound in clustered_interval([0.0] * 20, range(20), within=(0, 1))]
    [0.0, 0.0, 0.161]
    """
    found, (least, most) = np.asarray(values, dtype=np.float64), within
    members = np.unique(np.asarray(cluster), return_inverse=True)[1]
    if least < most and np.isin(found, within).all():
        _, low, high = share_interval(found == most, members)
        return float(found.mean()), least + (most - least) * low, least + (most - least) * high
    mean, clusters = float(found.mean()), int(members.max()) + 1
    if clusters == 1:
        return mean, least, most
    half = float(stdtrit(clusters - 1, LEVEL)) * math.sqrt(clustered_squares(found, members)) / len(found)
    return mean, max(least, mean - half), min(most, mean + half)


def clustered_squares(values: NDArray[np.float64], members: NDArray[np.int64]) -> float:
    """The sum over two clusters or more of the square of each one's residuals: N^2 times the variance of the mean."""
    residuals = np.bincount(members, weights=values - values.mean())
    return len(residuals) / (len(residuals) - 1) * float((residuals**2).sum())
