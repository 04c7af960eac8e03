"""Paired tests by user: is the difference between two recommenders more than chance.

The mean over samples of a gain (a hit, an NDCG) varies with two draws: which users are in the test set, and which
seed each training had. Both are here.

- *Users.* A user's samples depend on each other, and both recommenders answer the same users: so a user is one
  observation, the sum of the differences of its samples. Whole users are resampled (bootstrap) and whole users
  change sign (permutation), as Smucker, Allan and Carterette (CIKM 2007) compare retrieval systems.
- *Seeds.* Runs that differ by nothing but the seed are one recommender: each user's gains are averaged over them
  before pairing. Taking (user, seed) as observations instead would count every user once a seed and call
  differences between few users significant; comparing run by run would multiply the tests, each with the noise of
  one training.
- What a seed shifts for *all* users alike does not average out over users. `seed_variance` estimates it from the
  spread of equal runs, and interval and p-value are widened by it. A single run on both sides says nothing about it:
  then the result is about these two models, not about their settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95
CHUNK = 1 << 23  # random numbers held at a time: 32 MiB in float32
TIE = 1e-5  # a permuted mean this close below the observed one is equal to it, up to float32


@dataclass(frozen=True, eq=False)
class PairedTests:
    """Results of C comparisons over the same users, each float64 [C].

    Attributes:
        difference: mean over samples.
        low, high: bounds of its bootstrap interval (percentiles).
        p_value: two-sided, of the sign-flip permutation.
    """

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray


def sums_by_user(values: ArrayLike, user: ArrayLike) -> FloatArray:
    """Sums [U, C] over each user's samples of ``values`` [N, C]; users in the order of their numbers.

    Args:
        values: float [N, C].
        user: int64 [N], any numbers.
    """
    values, user = np.asarray(values, dtype=np.float64), np.asarray(user)
    order = np.argsort(user, kind="stable")
    begins = np.flatnonzero(np.diff(user[order], prepend=np.nan) != 0)
    return np.add.reduceat(values[order], begins, axis=0) if len(order) else np.zeros((0, values.shape[1]))


def seed_variance(groups: Sequence[ArrayLike], counts: ArrayLike) -> tuple[float, int]:
    """Variance between equal runs of what a seed shifts for all users alike, and its degrees of freedom.

    The spread of the runs' means is that shift and each user's own noise; the noise is estimated from the users
    and taken away (the variance component of a two-way layout without replication), and the rest is at least 0.

    Args:
        groups: for each set of equal runs, gains summed by user, [U, S_g]; sets of one run say nothing.
        counts: int64 [U], each user's samples.

    Returns (0.0, 0) where no set has two runs.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    between = noise = 0.0
    degrees = 0
    for group in groups:
        gains = np.asarray(group, dtype=np.float64)
        free = gains.shape[1] - 1
        if free < 1:
            continue
        degrees += free
        between += free * (gains.sum(axis=0) / total).var(ddof=1)
        noise += free * (gains.var(axis=1, ddof=1).sum() / total**2)
    if not degrees:
        return 0.0, 0
    # The users' own variance holds the shift too, once a sample.
    share = (counts**2).sum() / total**2
    return max(0.0, (between - noise) / degrees / (1 - share)) if share < 1 else 0.0, degrees


def paired_tests(
    differences: ArrayLike,
    counts: ArrayLike,
    *,
    seed_deviation: ArrayLike = 0.0,
    seed_degrees: ArrayLike = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedTests:
    """Test C differences over the same U users.

    The statistic is ``differences.sum(0) / counts.sum()``. Bootstrap: users drawn with replacement. Permutation:
    under the null hypothesis a user's difference is as likely of the other sign; the p-value is
    ``(1 + permutations at least as far from 0) / (1 + resamples)``. Where that many permutations cannot tell how
    small it is, Hoeffding's bound of the same distribution (1963, theorem 2), ``2 exp(-(sum d)^2 / (2 sum d^2))``,
    stands in where smaller, so that a correction over a long table loses nothing to the number of permutations.

    Args:
        differences: float [U, C], summed over each user's samples (`sums_by_user`), averaged over seeds before.
        counts: int64 [U], each user's samples.
        seed_deviation: [C] or one number, standard deviation that seeds give to the difference of means; it is
            added to both distributions as Student's t with ``seed_degrees`` [C] degrees of freedom.
        resamples: draws of each kind.
        level: of the interval.
        seed: of the draws.

    Raises ValueError where there is no user.
    """
    sums, counts = np.asarray(differences, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    users, columns = sums.shape
    if not users:
        raise ValueError("no users: nothing to compare")
    total = counts.sum()
    difference = sums.sum(axis=0) / total
    deviation = np.broadcast_to(np.asarray(seed_deviation, dtype=np.float64), (columns,))
    degrees = np.broadcast_to(np.asarray(seed_degrees), (columns,))
    generator = np.random.default_rng(seed)
    small, weights = sums.astype(np.float32), counts.astype(np.float32)
    reached = np.zeros(columns, dtype=np.int64)
    means = np.empty((resamples, columns), dtype=np.float32)
    far = np.abs(difference) * (1 - TIE)
    for begin in range(0, resamples, max(1, CHUNK // users)):
        size = min(max(1, CHUNK // users), resamples - begin)
        shift = seed_shift(generator, deviation, degrees, size)
        flipped = 2 * (random_bits(generator, size, users) @ small) / total - difference
        reached += (np.abs(flipped + shift) >= far).sum(axis=0)
        drawn = bootstrap_counts(generator, size, users)
        means[begin : begin + size] = (drawn @ small) / (drawn @ weights)[:, None] + shift
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(means, tails, axis=0)
    sampled = (1 + reached) / (1 + resamples)
    squares = (sums**2).sum(axis=0)
    bound = 2 * np.exp(-((difference * total) ** 2) / np.maximum(2 * squares, np.finfo(float).tiny))
    p_value = np.where(deviation > 0, sampled, np.minimum(sampled, bound))
    return PairedTests(difference, low, high, np.where(squares > 0, p_value, 1.0))


def random_bits(generator: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Fair coins, float32 [rows, columns]."""
    packed = np.frombuffer(generator.bytes(rows * (-(-columns // 8))), dtype=np.uint8).reshape(rows, -1)
    return np.unpackbits(packed, axis=1, count=columns).astype(np.float32)


def bootstrap_counts(generator: np.random.Generator, rows: int, users: int) -> NDArray[np.float32]:
    """How often each user is drawn in each of the resamples, float32 [rows, users]."""
    drawn = generator.integers(users, size=(rows, users), dtype=np.int64)
    drawn += np.arange(rows, dtype=np.int64)[:, None] * users
    return np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users).astype(np.float32)


def seed_shift(
    generator: np.random.Generator, deviation: FloatArray, degrees: NDArray[np.int64], size: int
) -> FloatArray | float:
    """Random shifts [size, C] by the seeds; 0 where no column has any."""
    if not deviation.any():
        return 0.0
    return deviation * generator.standard_t(np.maximum(degrees, 1), size=(size, len(deviation)))


def holm(p_values: ArrayLike) -> FloatArray:
    """P-values adjusted for all of them being looked at (Holm, 1979), in the given order, float64 [C]."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def p_value_text(value: float) -> str:
    """'0.013', '< 0.001'."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
