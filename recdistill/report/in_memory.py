"""Trained recommenders compared in memory, as finished runs are, without a tracking store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recdistill.config import StudentConfig
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.rank_table import rank_table
from recdistill.report.compared import EvaluatedRun, EvaluatedSamples, Int64Array, check_comparable, groups_of
from recdistill.report.results import MetricName, Results, compare_groups
from recdistill.report.settings import Settings
from recdistill.students.measure import Fitted


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A recommender with the ranks that it gave the targets of N samples.

    Attributes:
        name: what to call it; its step where it has no name of its own.
        step, seed, settings, fingerprint: as in `EvaluatedRun`.
        ranks: int64 [N], 1 the best.
        user: [N], the user of each sample, a number or an id.
        history_length: int64 [N], items before the target.
        item_count: int64 [N], how often the target is a training target.
        id: tells it from the others; empty: its place among them.
        baseline: id of the one that it is naturally compared to, or None.
        data: the data and the split in words.
        exclude_seen: whether items of the history were left out of its ranking.
    """

    name: str
    step: str
    seed: int
    settings: Settings
    fingerprint: str
    ranks: Int64Array
    user: NDArray[np.generic]
    history_length: Int64Array
    item_count: Int64Array
    id: str = ""
    baseline: str | None = None
    data: str = "the same data"
    exclude_seen: bool = True


class Trained(Protocol):
    """What a comparison reads of a trained recommender; `recdistill.api.TrainedStudent` is one."""

    @property
    def step(self) -> str:
        """``backbone`` or ``distill``."""

    @property
    def config(self) -> StudentConfig:
        """Its options."""

    @property
    def settings(self) -> Settings:
        """What its result depends on, the seed aside."""

    @property
    def data(self) -> SequenceData:
        """What it was measured on."""

    @property
    def fitted(self) -> Fitted:
        """Its ranks."""


def compare_fitted(
    recommenders: Sequence[Trained], metric: str = "test/ndcg_at_10", *, resamples: int = 10_000, seed: int = 1
) -> Results:
    """Test trained recommenders against the first of them; see `compare_evaluated`."""
    part = MetricName.read(metric).part
    for place, one in enumerate(recommenders):
        if not hasattr(one, "fitted"):
            raise InputError(
                f"students: the entry {place} is a {type(one).__name__}, which has no ranks of its training; give "
                "what train_student and distill return (a teacher's run is compared by compare_runs)"
            )
    evaluated = [evaluated_on(one, part) for one in recommenders]
    return compare_evaluated(evaluated, metric, resamples=resamples, seed=seed)


def evaluated_on(recommender: Trained, part: str) -> Evaluated:
    """A trained recommender with its ranks on ``part``, ``val`` or ``test``."""
    data, fitted = recommender.data, recommender.fitted
    samples, ranked = (data.validation, fitted.validation) if part == "val" else (data.test, fitted.test)
    table = rank_table(ranked, samples, data)
    return Evaluated(
        name=recommender.step,
        step=recommender.step,
        seed=recommender.config.seed,
        settings=recommender.settings,
        fingerprint=data.fingerprint,
        ranks=table["rank"].to_numpy(np.int64),
        user=samples.user,
        history_length=table["history_length"].to_numpy(np.int64),
        item_count=table["item_count"].to_numpy(np.int64),
        data=f"{data.name}, {data.split}",
        exclude_seen=recommender.config.exclude_seen,
    )


def compare_evaluated(
    evaluated: Sequence[Evaluated], metric: str = "test/ndcg_at_10", *, resamples: int = 10_000, seed: int = 1
) -> Results:
    """Which of several recommenders is better, by how much, and whether it was luck.

    Those that share step and settings are one recommender of several seeds. Each is held against its ``baseline``,
    and where none has one here, all against the first.

    Args:
        evaluated: at least two, with ranks of the same samples, of the part that the metric names.
        metric: the one that decides, as the step ``compare`` names it.
        resamples: bootstrap and permutation draws.
        seed: of these draws; the same one gives the same numbers.

    Raises:
        InputError: they cannot be compared, or the metric is unknown.
    """
    name = MetricName.read(metric)
    if len(evaluated) < 2:
        raise InputError(f"compare: got {len(evaluated)} recommenders; give at least two")
    runs = [as_run(one, place) for place, one in enumerate(evaluated, start=1)]
    check_comparable(runs)
    samples = samples_of(evaluated, [run.run_id for run in runs])
    return compare_groups(groups_of(runs), samples, name, resamples=resamples, seed=seed)


def as_run(one: Evaluated, place: int) -> EvaluatedRun:
    """A recommender as a comparison of runs sees it; ``place`` is its number among those compared."""
    return EvaluatedRun(
        run_id=one.id or f"#{place}",
        name=one.name,
        step=one.step,
        seed=one.seed,
        settings=one.settings,
        fingerprint=one.fingerprint,
        data=one.data,
        exclude_seen=one.exclude_seen,
        baseline_id=one.baseline or "",
    )


def samples_of(evaluated: Sequence[Evaluated], ids: Sequence[str]) -> EvaluatedSamples:
    """The samples that all of ``evaluated``, which have these ids, ranked.

    Raises InputError, naming the recommenders, where an id stands twice, ranks are no ranks, or the samples differ.
    """
    first = evaluated[0]
    for one, name in zip(evaluated, ids, strict=True):
        if ids.count(name) > 1:
            raise InputError(f"{name}: stands {ids.count(name)} times among the recommenders; give each once")
        sizes = {len(part) for part in (one.ranks, one.user, one.history_length, one.item_count)}
        if len(sizes) > 1 or not len(one.ranks) or one.ranks.min() < 1:
            raise InputError(f"{name}: give one rank of at least 1, user, history_length and item_count a sample")
        same = (
            np.array_equal(one.user, first.user),
            np.array_equal(one.history_length, first.history_length),
            np.array_equal(one.item_count, first.item_count),
        )
        if not all(same):
            raise InputError(
                f"{ids[0]} ({len(first.ranks)} samples) and {name} ({len(one.ranks)} samples) ranked different "
                "samples; evaluate both on all samples of the split, in its order"
            )
    return EvaluatedSamples(
        ranks={name: one.ranks for one, name in zip(evaluated, ids, strict=True)},
        user=np.unique(first.user, return_inverse=True)[1],
        history_length=first.history_length,
        item_count=first.item_count,
    )
