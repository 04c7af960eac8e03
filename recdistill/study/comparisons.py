"""How sure a difference between two rows is: over users, over items and over seeds.

Rows are paired by test sample: the same seed, user and target. A difference of means varies with the users, with the
items, and with the seed (which also draws the new items). Each has an interval of its own. The verdict goes by the
wider of users' and items', for a finding that holds for other users and not for other items is no finding; and the
seeds must agree: three or more by their own interval, two by their signs; one of several decides nothing. (A few seeds
tell little of how small a p-value is, so that they have no part in the correction for many comparisons.)

*Not below*, that a loss of more than a margin is ruled out, is a claim of its own, which asks the same: users and
items must rule the loss out, after a correction of its own over all comparisons, and the seeds, too (three or more by
their own interval; of two neither may have the loss).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from recdistill.evaluation.paired_tests import holm
from recdistill.evaluation.rank_metrics import gains
from recdistill.evaluation.rank_table import common_samples

FloatArray = NDArray[np.float64]
LEVEL = 0.95
SIGNIFICANCE = 0.05
METRIC, CUT_OFF = "ndcg", 20
#: What is compared: all targets; those that were trained; of these the sparse ones; new ones in the whole catalogue;
#: new ones among the new.
PARTS = ("all", "warm", "sparse", "new", "new_among_new")
#: A trained item with at most so many training targets is sparse.
SPARSE = 10
MINIMUM = 2  # clusters that a deviation needs
ENOUGH_EQUAL = 10  # clusters of equal differences that are one
#: Spread below which numbers are equal but for rounding, as a share of the largest.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A difference of means by one kind of cluster: users, items or seeds.

    Attributes:
        clusters: how many.
        deviation: standard error of the difference; NaN with fewer than two clusters.
        low, high: bounds of the 95 % interval by Student's t.
        p_value: two-sided.
        p_below: one-sided, of the difference being at or below minus the margin.
    """

    clusters: int
    deviation: float
    low: float
    high: float
    p_value: float
    p_below: float


@dataclass(frozen=True)
class Difference:
    """One row against another on one part of the test samples.

    Attributes:
        part: of `PARTS`.
        value, against: the metric of both, mean over samples and seeds.
        samples, seeds: that both rows ranked.
        by_user, by_item, by_seed: intervals.
        p_value: the larger of users' and items', 1 where there is one user or one item.
        p_below: likewise, for *not below by more than the margin*; 1 where the seeds do not rule the loss out.
        seeds_agree: whether the seeds do, on the sign of the difference.
        adjusted, adjusted_below: both p-values after Holm's correction, see `corrected`; NaN before it.
    """

    part: str
    value: float
    against: float
    samples: int
    seeds: int
    by_user: Interval
    by_item: Interval
    by_seed: Interval
    p_value: float
    p_below: float
    seeds_agree: bool
    adjusted: float = math.nan
    adjusted_below: float = math.nan

    @property
    def difference(self) -> float:
        """``value - against``."""
        return self.value - self.against

    @property
    def relative(self) -> float:
        """The difference as a share of ``against``; NaN where that is 0."""
        return self.difference / self.against if self.against else math.nan

    @property
    def wider(self) -> Interval:
        """Of users' and items' interval the one that is less sure, and is known."""
        by_user, by_item = self.by_user, self.by_item
        if math.isnan(by_item.deviation):
            return by_user
        return by_item if math.isnan(by_user.deviation) or by_item.p_value > by_user.p_value else by_user

    @property
    def verdict(self) -> str:
        """'better' or 'worse', see the module; else 'not below' where that is shown; else 'unclear'.

        Always 'unclear' before `corrected`.
        """
        if self.adjusted < SIGNIFICANCE and self.seeds_agree:
            return "better" if self.difference > 0 else "worse"
        return "not below" if self.adjusted_below < SIGNIFICANCE else "unclear"


def gains_of(ranks: pd.DataFrame, part: str) -> pd.DataFrame:
    """Gain of each sample of a part: columns user, item, gain.

    Args:
        ranks: columns user, item, rank, rank_among_new (0 for a trained target) and item_count.
        part: of `PARTS`.
    """
    new = ranks["rank_among_new"].to_numpy() > 0
    count = ranks["item_count"].to_numpy()
    sparse = (count > 0) & (count <= SPARSE)
    every = np.ones(len(new), dtype=bool)
    chosen = {"all": every, "warm": count > 0, "sparse": sparse, "new": new, "new_among_new": new}[part]
    found = ranks[chosen]
    column = "rank_among_new" if part == "new_among_new" else "rank"
    values = torch.from_numpy(found[column].to_numpy(dtype=np.int64, copy=True))
    return pd.DataFrame({"user": found["user"], "item": found["item"], "gain": gains(METRIC, values, CUT_OFF).numpy()})


def difference(
    row: Sequence[pd.DataFrame], against: Sequence[pd.DataFrame], part: str, margin: float
) -> Difference | None:
    """One row against another.

    Args:
        row, against: ranks of each seed, the same seeds in the same order.
        part: of `PARTS`.
        margin: as a share of the other row's value.

    Returns None where the part has no sample that both ranked.
    """
    pairs = [paired(gains_of(one, part), gains_of(other, part)) for one, other in zip(row, against, strict=True)]
    # A seed without a sample of the part has no number.
    seed = np.unique(np.repeat(np.arange(len(pairs)), [len(pair) for pair in pairs]), return_inverse=True)[1]
    whole = pd.concat(pairs, ignore_index=True)
    if whole.empty:
        return None
    values = whole["gain"].to_numpy() - whole["gain_against"].to_numpy()
    other = float(whole["gain_against"].mean())
    least = -margin * other
    intervals = [
        clustered(values, pd.factorize(whole["user"])[0], least),
        clustered(values, pd.factorize(whole["item"])[0], least),
        clustered(values, seed, least),
    ]
    means = np.bincount(seed, values) / np.bincount(seed)
    # Seeds of a row that draws nothing are equal, which no interval of so few tells.
    alike = len(means) <= MINIMUM or is_rounding(float(np.ptp(means)), means)
    agree = len(set(np.sign(means))) == 1 if alike else intervals[2].p_value < SIGNIFICANCE
    ruled_out = (len(means) == 1 or means.min() > least) if alike else intervals[2].p_below < SIGNIFICANCE
    return Difference(
        part=part,
        value=float(whole["gain"].mean()),
        against=other,
        samples=len(whole),
        seeds=len(means),
        by_user=intervals[0],
        by_item=intervals[1],
        by_seed=intervals[2],
        p_value=max(one.p_value for one in intervals[:2]),
        p_below=max(one.p_below for one in intervals[:2]) if ruled_out else 1.0,
        seeds_agree=bool(agree),
    )


def undecided(one: Difference, seeds: int) -> Difference:
    """The difference without a verdict of its own while a single seed of so many that were asked for is there."""
    return replace(one, seeds_agree=False, p_below=1.0) if one.seeds == 1 < seeds else one


def paired(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Samples of both, by user and item; a user's repeated target pairs in the order of its samples."""
    own, others = common_samples([one, other])
    return one.iloc[own].assign(gain_against=other["gain"].to_numpy()[others])


def clustered(values: FloatArray, cluster: NDArray[np.int64], least: float) -> Interval:
    """Interval of the mean of ``values`` [N] whose clusters [N] are independent (Liang and Zeger, 1986).

    The deviation is that of a ratio, the sum over the number of samples, with both drawn cluster by cluster.
    """
    clusters = int(cluster.max()) + 1
    mean = float(values.mean())
    if clusters < MINIMUM:
        return Interval(clusters, math.nan, math.nan, math.nan, 1.0, 1.0)
    residual = np.bincount(cluster, weights=values - mean, minlength=clusters)
    deviation = math.sqrt(float((residual**2).sum()) * clusters / (clusters - 1)) / len(values)
    if is_rounding(deviation, values):
        # A few clusters that agree to the last bit, or but for rounding, are no proof.
        told = mean == 0 or clusters >= ENOUGH_EQUAL
        p_value = 0.0 if mean != 0 and told else 1.0
        return Interval(clusters, 0.0, mean, mean, p_value, 0.0 if told and mean > least else 1.0)
    free = clusters - 1
    width = float(student_t.ppf((1 + LEVEL) / 2, free)) * deviation
    two_sided = 2 * float(student_t.sf(abs(mean) / deviation, free))
    below = float(student_t.sf((mean - least) / deviation, free))
    return Interval(clusters, deviation, mean - width, mean + width, two_sided, below)


def is_rounding(spread: float, values: FloatArray) -> bool:
    """Whether a spread of values is no more than rounding makes."""
    return spread <= ROUNDING * float(np.abs(values).max())


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """The differences with p-values adjusted for all of them being looked at (Holm, 1979): each kind for itself."""
    values, below = holm([one.p_value for one in found]), holm([one.p_below for one in found])
    return [
        replace(one, adjusted=float(value), adjusted_below=float(value_below))
        for one, value, value_below in zip(found, values, below, strict=True)
    ]
