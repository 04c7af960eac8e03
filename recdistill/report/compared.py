"""Evaluated runs, those that differ only by the seed taken together, each with what it is compared to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recdistill.errors import InputError
from recdistill.report.settings import Settings, closed_forms, labels

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A finished run whose test and validation targets were ranked.

    Attributes:
        run_id: its id.
        name: the name a user gave it, or its step.
        step: 'prepare' (popularity), 'backbone', 'teacher' or 'distill'.
        seed: of its training.
        settings: what its result depends on, seeds aside (`settings.settings_of`).
        fingerprint: of its data and split.
        data: the data and the split in words.
        exclude_seen: whether items of the history were left out of its ranking.
        baseline_id: the run it is naturally compared to (a student's undistilled twin, a teacher's backbone); or ''.
        key: of what its result depends on, seeds included; runs that share it are one made again. '' where it has none.
        whole: it keeps its lists and a model to serve, as a sweep's trial does not.
    """

    run_id: str
    name: str
    step: str
    seed: int
    settings: Settings
    fingerprint: str
    data: str
    exclude_seen: bool
    baseline_id: str
    key: str = ""
    whole: bool = True


@dataclass(frozen=True, eq=False)
class EvaluatedSamples:
    """What all compared runs were evaluated on: N samples, and the rank that each run gave their targets.

    Attributes:
        ranks: int64 [N] by run id, 1 the best.
        user: int64 [N], numbers of the users.
        history_length: int64 [N], items before the target.
        item_count: int64 [N], how often the target is a training target.
        of: how many samples the run that ranked most has; 0 for these.
    """

    ranks: Mapping[str, Int64Array]
    user: Int64Array
    history_length: Int64Array
    item_count: Int64Array
    of: int = 0


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ by nothing but the seed: one recommender.

    Attributes:
        label: the shortest name that tells it apart.
        runs: at least one.
        baseline: index of the group it is compared to; None for none.
    """

    label: str
    runs: tuple[EvaluatedRun, ...]
    baseline: int | None = None

    @property
    def step(self) -> str:
        """The step that made its runs."""
        return self.runs[0].step

    @property
    def is_drawn(self) -> bool:
        """Whether another seed gives another recommender: popularity and closed-form recommenders draw no number."""
        return self.step != "prepare" and self.runs[0].settings.get("student") not in closed_forms()


def check_comparable(runs: Sequence[EvaluatedRun]) -> None:
    """Raise InputError, naming the runs, unless all are of the same data and split, ranked the same way."""
    for run in runs[1:]:
        first = runs[0]
        if run.fingerprint != first.fingerprint:
            raise InputError(
                f"runs of different data or splits: {first.run_id} ({first.step}) is of {first.data} "
                f"[{first.fingerprint[:12]}], {run.run_id} ({run.step}) of {run.data} [{run.fingerprint[:12]}]; "
                "name runs of one data set and split by runs=, or choose them by filter="
            )
        if run.exclude_seen != first.exclude_seen:
            raise InputError(
                f"runs ranked differently: {first.run_id} ({first.step}) with exclude_seen={first.exclude_seen}, "
                f"{run.run_id} ({run.step}) with exclude_seen={run.exclude_seen}; evaluate both the same way"
            )


def groups_of(runs: Sequence[EvaluatedRun], baseline: str = "auto") -> tuple[Group, ...]:
    """Group runs by settings, in order of appearance, and give each group its baseline.

    Args:
        runs: comparable (`check_comparable`), no id twice. Where they all share their settings, the seed is what
            is compared: each run is a group. Else of a run that was made again the last one stands for all, a whole one
            where there is one, and does not count as another seed.
        baseline: id of a run, whose group is the baseline of all others; or 'auto': each group against that of
            its runs' ``baseline_id``, and where no run has one here, all against the first group.

    Raises InputError where the baseline is not among the runs.
    """
    collected: dict[object, list[EvaluatedRun]] = {}
    for run in runs:
        collected.setdefault((run.step, tuple(sorted(run.settings.items()))), []).append(run)
    if len(collected) == 1:
        collected = {run.run_id: [run] for run in runs}
    group_of = {run.run_id: index for index, group in enumerate(collected.values()) for run in group}
    members = [tuple(standing(group).values()) for group in collected.values()]
    baselines = baselines_of(members, group_of, baseline)
    names = names_of(members)
    return tuple(Group(*parts) for parts in zip(names, members, baselines, strict=True))


def standing(group: Sequence[EvaluatedRun]) -> dict[str, EvaluatedRun]:
    """Of runs that share a key the one that stands for all, by key: the last, or the last whole one."""
    last = {run.key or run.run_id: run for run in group}
    return last | {run.key or run.run_id: run for run in group if run.whole}


def baselines_of(
    members: Sequence[tuple[EvaluatedRun, ...]], group_of: Mapping[str, int], baseline: str
) -> list[int | None]:
    """Index of each group's baseline."""
    if baseline != "auto":
        if baseline not in group_of:
            raise InputError(f"baseline={baseline}: is not among the compared runs; give the id of one of them")
        chosen = group_of[baseline]
        return [None if index == chosen else chosen for index in range(len(members))]
    natural: list[int | None] = []
    for index, group in enumerate(members):
        linked = [group_of[run.baseline_id] for run in group if run.baseline_id in group_of]
        others = [other for other in linked if other != index]
        natural.append(max(sorted(set(others)), key=others.count) if others else None)
    if all(choice is None for choice in natural):
        return [None if index == 0 else 0 for index in range(len(members))]
    return natural


def names_of(members: Sequence[tuple[EvaluatedRun, ...]]) -> list[str]:
    """Labels of groups, all different: a name given by hand or the step, settings, and seed or id where needed."""
    firsts = [group[0] for group in members]
    given = ["" if name_of(group) == group[0].step else name_of(group) for group in members]
    named = labels([run.step for run in firsts], [run.settings for run in firsts], given)
    for suffix in (lambda run: f"seed={run.seed}", lambda run: run.run_id[:8]):
        times = Counter(named)
        named = [name if times[name] == 1 else f"{name} {suffix(run)}" for name, run in zip(named, firsts, strict=True)]
    return named


def name_of(group: tuple[EvaluatedRun, ...]) -> str:
    """The name that all runs of a group have, else their step."""
    names = {run.name for run in group}
    return names.pop() if len(names) == 1 else group[0].step
