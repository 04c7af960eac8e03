"""Ranks of a ranking teacher on the validation and test samples, both read in one pass."""

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from recdistill.data.samples import Samples
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.ranking import best_items, rank_among, rank_of_target
from recdistill.students.measure import KEPT
from recdistill.teachers.scoring import shared_batches

if TYPE_CHECKING:
    from recdistill.teachers.ranking.teacher import RankingTeacher


@torch.inference_mode()
def ranks_of_samples(teacher: "RankingTeacher") -> tuple[Ranked, Ranked, float]:
    """Ranks and best items of the validation and of the test samples, and the seconds it took.

    Samples of a user share a prompt where they follow each other.
    """
    started = time.perf_counter()
    data = teacher.data
    both, order = joined(data.validation, data.test)
    ranks = torch.zeros(len(both), dtype=torch.int64)
    best = torch.zeros(len(both), KEPT, dtype=torch.int64)
    among = torch.zeros(len(both), dtype=torch.int64)
    in_test = torch.from_numpy(order >= len(data.validation))
    new_validation, new_test = torch.from_numpy(data.new_validation), torch.from_numpy(data.new_test)
    samples_a_user = -(-len(both) // len(np.unique(both.start)))
    read = teacher.batches(both, shuffle=False, stride=min(teacher.stride, samples_a_user))
    for _, batch, wanted in shared_batches(teacher.processes, read, "teacher ranks", len(both)):
        logits, _ = teacher.score(batch)
        if not wanted:
            continue
        excluded = teacher.excluded(both, batch)
        ranks[batch.sample] = rank_of_target(logits, batch.target, excluded).cpu()
        best[batch.sample] = best_items(logits, KEPT, excluded).cpu()
        among[batch.sample] = torch.where(
            in_test[batch.sample],
            rank_among(logits, batch.target, new_test, excluded).cpu(),
            rank_among(logits, batch.target, new_validation, excluded).cpu(),
        )
    ranks, best, among = (teacher.processes.sum(one) for one in (ranks, best, among))
    place = torch.from_numpy(order).argsort()
    sizes = [len(data.validation), len(data.test)]
    validation, test = (Ranked(ranks[part], best[part], among[part]) for part in place.split(sizes))
    return validation, test, time.perf_counter() - started


def joined(first: Samples, second: Samples) -> tuple[Samples, np.ndarray]:
    """Both samples as one, each user's in order of time, and the place that each had, first's before second's.

    Both share one flat item array, or are laid one after the other.
    """
    if first.items is second.items:
        items, shift = first.items, 0
    else:
        items, shift = np.concatenate([first.items, second.items]), len(first.items)
    start, end = np.concatenate([first.start, second.start + shift]), np.concatenate([first.end, second.end + shift])
    user = np.concatenate([first.user, second.user])
    order = np.lexsort((end, start))
    # Targets of new items stand in no flat array.
    stand_apart = first.target is not None or second.target is not None
    target = np.concatenate([first.targets, second.targets])[order] if stand_apart else None
    return Samples(items, start[order], end[order], user[order], target), order
