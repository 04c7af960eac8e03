"""Every group of runs tested against its baseline: over all samples, and by subgroup."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recdistill.errors import InputError
from recdistill.evaluation.paired_tests import holm, paired_tests, seed_variance, sums_by_user
from recdistill.evaluation.rank_metrics import gains as gains_of_ranks
from recdistill.evaluation.slices import history_slices, popularity_slices
from recdistill.registry import METRICS
from recdistill.report.compared import EvaluatedSamples, Group

FloatArray = NDArray[np.float64]
SIGNIFICANCE = 0.05
ALL = "all"
#: Metrics that every comparison tests, beside the one that decides.
ALWAYS, USUAL_CUT_OFF = ("hr", "ndcg"), 10


@dataclass(frozen=True)
class MetricName:
    """A metric as it is logged: ``test/ndcg_at_10`` is NDCG at 10 on the test samples.

    Attributes:
        part: ``val`` or ``test``.
        kind: name of a registered metric.
        k: cut-off; None for a metric without one.
    """

    part: str
    kind: str
    k: int | None

    @classmethod
    def read(cls, text: str) -> "MetricName":
        """Raises InputError unless it is a registered metric, with a cut-off where it takes one, on val or test."""
        found = re.fullmatch(r"(val|test)/(\w+?)(?:_at_([1-9]\d{0,5}))?", text)
        if found is None or found[2] not in METRICS.names(of=None) or has_cut_off(found[2]) != (found[3] is not None):
            known = [f"{name}_at_10" if has_cut_off(name) else name for name in METRICS.names(of=None)]
            raise InputError(
                f"metric={text}: must be like test/ndcg_at_10: val or test, and one of {', '.join(known)}; "
                "10 may be another cut-off"
            )
        return cls(found[1], found[2], int(found[3]) if found[3] else None)

    def __str__(self) -> str:
        return self.kind.upper() if self.k is None else f"{self.kind.upper()}@{self.k}"


def has_cut_off(metric: str) -> bool:
    """Whether a registered metric takes a cut-off."""
    return bool(METRICS.declaration(metric).about.get("cut_offs"))


@dataclass(frozen=True)
class Row:
    """One group against its baseline, by one metric on one subgroup of samples.

    Attributes:
        group, baseline: indices of groups.
        metric: e.g. 'NDCG@10'.
        kind, subgroup: 'all' and 'all', or e.g. 'popularity' and 'tail (1-12)'.
        samples, users: in the subgroup.
        value, baseline_value: the metric of both, mean over seeds.
        difference: value - baseline_value, with its 95 % interval ``low`` to ``high`` (of this row alone).
        p_value: of the paired permutation test.
        adjusted: p-value after Holm's correction over the table.
    """

    group: int
    baseline: int
    metric: str
    kind: str
    subgroup: str
    samples: int
    users: int
    value: float
    baseline_value: float
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float

    @property
    def relative(self) -> float:
        """Difference as a share of the baseline's value; NaN where that is 0."""
        return self.difference / self.baseline_value if self.baseline_value else math.nan

    @property
    def verdict(self) -> str:
        """'better', 'worse' or 'unclear', by the adjusted p-value."""
        if self.adjusted >= SIGNIFICANCE:
            return "unclear"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Results:
    """What a comparison found.

    Attributes:
        metric: the headline.
        groups: the recommenders.
        values: metric name to the value of each group, mean over seeds.
        deviations: metric name to the standard deviation over seeds of each group, NaN where it has one.
        rows: over all samples, each group that has a baseline, HR, NDCG and the headline; one Holm family.
        slices: the headline metric by subgroup; another Holm family.
        best: the group with the highest headline value.
        behind: p-value of each group being as good as the best, times the number of pairs of groups (at most 1),
            since the best was picked by looking at all.
        samples, users: how many were ranked.
        resamples: bootstrap and permutation draws.
        of: as of `EvaluatedSamples`.
    """

    metric: MetricName
    groups: tuple[Group, ...]
    values: dict[str, list[float]]
    deviations: dict[str, list[float]]
    rows: tuple[Row, ...]
    slices: tuple[Row, ...]
    best: int
    behind: list[float]
    samples: int
    users: int
    resamples: int
    of: int = 0

    def row_of(self, group: int) -> Row | None:
        """The headline row of a group."""
        return next((row for row in self.rows if row.group == group and row.metric == str(self.metric)), None)

    @property
    def tied(self) -> list[int]:
        """Groups that cannot be told from the best."""
        return [index for index, p_value in enumerate(self.behind) if index != self.best and p_value >= SIGNIFICANCE]

    def __str__(self) -> str:
        """The table with its intervals, and who won, as plain text."""
        from recdistill.report.text import plain_text

        return plain_text(self)

    def frame(self) -> pd.DataFrame:
        """Every row of both tables, numbers unrounded; see `text.frame`."""
        from recdistill.report.text import frame

        return frame(self)

    @property
    def answer(self) -> str:
        """Which recommender won, by how much, and whether it may be luck: a sentence a line."""
        from recdistill.report.text import answer

        return "\n".join(answer(self))

    def plot(self, *, subgroups: bool = False, leave_out: Collection[str] = ()) -> str:
        """Draw the headline gains against the baselines with their 95 % intervals, the best recommender first.

        Args:
            subgroups: gains by length of the history and by popularity of the target, of up to four recommenders;
                else one gain a recommender, over all samples.
            leave_out: recommenders that are not drawn, by their labels in ``frame()``.

        Returns SVG text. Raises InputError where a label is not one of these.
        """
        from recdistill.report.plots import gains_plot, subgroup_plot
        from recdistill.report.text import order

        labels = [group.label for group in self.groups]
        for label in leave_out:
            if label not in labels:
                raise InputError(f"leave_out={label}: is not compared here; give some of {', '.join(labels)}")
        shown = [index for index in order(self) if labels[index] not in leave_out]
        return subgroup_plot(self, shown) if subgroups else gains_plot(self, shown)


def tested_metrics(headline: MetricName) -> list[MetricName]:
    """HR and NDCG at the headline's cut-off (10 where it has none), and the headline."""
    k = USUAL_CUT_OFF if headline.k is None else headline.k
    return list(dict.fromkeys([*(MetricName(headline.part, kind, k) for kind in ALWAYS), headline]))


def compare_groups(
    groups: Sequence[Group],
    samples: EvaluatedSamples,
    metric: MetricName,
    *,
    resamples: int,
    seed: int = 0,
) -> Results:
    """Test all groups against their baselines in `tested_metrics`, and in the headline by subgroup.

    The same seed gives the same numbers.
    """
    user = np.unique(samples.user, return_inverse=True)[1]
    pairs = [(index, group.baseline) for index, group in enumerate(groups) if group.baseline is not None]
    values: dict[str, list[float]] = {}
    deviations: dict[str, list[float]] = {}
    rows: list[Row] = []
    slices: list[Row] = []
    behind: list[float] = []
    best = 0
    for tested in tested_metrics(metric):
        name = str(tested)
        gains = Gains.of(groups, samples, user, tested)
        values[name], deviations[name] = gains.values(), gains.deviations()
        rows += gains.test(pairs, name, resamples, seed)
        if tested != metric:
            continue
        best = int(np.argmax(values[name]))
        against = [(best, other) for other in range(len(groups)) if other != best]
        held = gains.test(against, name, resamples, seed)
        all_pairs = len(groups) * (len(groups) - 1) // 2
        behind = [min(1.0, row.p_value * all_pairs) for row in held]
        behind.insert(best, 1.0)
        for partition in (history_slices(samples.history_length), popularity_slices(samples.item_count)):
            for index, subgroup in enumerate(partition.names):
                part = gains.only(partition.member == index)
                slices += part.test(pairs, name, resamples, seed, partition.kind, subgroup)
    return Results(
        metric=metric,
        groups=tuple(groups),
        values=values,
        deviations=deviations,
        rows=corrected(rows),
        slices=corrected(slices),
        best=best,
        behind=behind,
        samples=len(user),
        users=int(user.max()) + 1,
        resamples=resamples,
        of=samples.of,
    )


@dataclass(frozen=True, eq=False)
class Gains:
    """Gains of all runs on N samples.

    Attributes:
        groups: G recommenders.
        user: int64 [N].
        gains: float64 [N, R], the runs of the first group, then of the next.
    """

    groups: Sequence[Group]
    user: NDArray[np.int64]
    gains: FloatArray

    @classmethod
    def of(
        cls, groups: Sequence[Group], samples: EvaluatedSamples, user: NDArray[np.int64], metric: MetricName
    ) -> "Gains":
        """From the runs' ranks."""
        ranks = np.stack([samples.ranks[run.run_id] for group in groups for run in group.runs], axis=1)
        # Of all runs at once, as one long column, for a metric takes a rank for each sample.
        found = gains_of_ranks(metric.kind, torch.from_numpy(ranks).reshape(-1), metric.k)
        return cls(groups, user, found.numpy().reshape(ranks.shape))

    def only(self, chosen: NDArray[np.bool_]) -> "Gains":
        """Those of some samples."""
        return Gains(self.groups, self.user[chosen], self.gains[chosen])

    def by_group(self, of_runs: FloatArray) -> list[FloatArray]:
        """Columns of ``of_runs`` [..., R] as one array [..., S] a group."""
        return np.split(of_runs, np.cumsum([len(group.runs) for group in self.groups])[:-1], axis=-1)

    def values(self) -> list[float]:
        """Each group's metric, mean over samples and seeds."""
        return [float(means.mean()) for means in self.by_group(self.gains.mean(axis=0))]

    def deviations(self) -> list[float]:
        """Standard deviation of each group's metric over its seeds; NaN where it has one."""
        by_group = self.by_group(self.gains.mean(axis=0))
        return [float(means.std(ddof=1)) if len(means) > 1 else math.nan for means in by_group]

    def test(
        self,
        pairs: Sequence[tuple[int, int]],
        metric: str,
        resamples: int,
        seed: int,
        kind: str = ALL,
        subgroup: str = ALL,
    ) -> list[Row]:
        """A row for each pair (group, baseline), p-values not adjusted yet."""
        if not pairs:
            return []
        counts = sums_by_user(np.ones((len(self.user), 1)), self.user)[:, 0]
        sums = self.by_group(sums_by_user(self.gains, self.user))
        # Averaging over seeds first makes a user one observation, however many seeds there are.
        means = [total.mean(axis=1) for total in sums]
        spread = [self.seed_spread(one, other, sums, counts) for one, other in pairs]
        tests = paired_tests(
            np.stack([means[one] - means[other] for one, other in pairs], axis=1),
            counts,
            seed_deviation=[deviation for deviation, _ in spread],
            seed_degrees=[degrees for _, degrees in spread],
            resamples=resamples,
            seed=seed,
        )
        values = self.values()
        return [
            Row(
                group=one,
                baseline=other,
                metric=metric,
                kind=kind,
                subgroup=subgroup,
                samples=len(self.user),
                users=len(counts),
                value=values[one],
                baseline_value=values[other],
                difference=float(tests.difference[column]),
                low=float(tests.low[column]),
                high=float(tests.high[column]),
                p_value=float(tests.p_value[column]),
                adjusted=float(tests.p_value[column]),
            )
            for column, (one, other) in enumerate(pairs)
        ]

    def seed_spread(self, one: int, other: int, sums: Sequence[FloatArray], counts: FloatArray) -> tuple[float, int]:
        """Deviation that seeds give to the difference of two groups' means, and its degrees of freedom."""
        # Equal runs of what draws nothing say nothing of what a seed does.
        drawn = [index for index in (one, other) if self.groups[index].is_drawn]
        variance, degrees = seed_variance([sums[index] for index in drawn], counts)
        return (variance * sum(1 / len(self.groups[index].runs) for index in drawn)) ** 0.5, degrees


def corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with p-values adjusted for all of them being looked at (Holm)."""
    values = holm([row.p_value for row in rows])
    return tuple(replace(row, adjusted=float(value)) for row, value in zip(rows, values, strict=True))
