"""Confidence intervals of shares."""

from statistics import NormalDist

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
