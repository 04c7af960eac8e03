"""Ranks of a ranking teacher on the validation and test samples, both read in one pass."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recdistill.data.batches import Batch
from recdistill.data.samples import Samples
from recdistill.evaluation.evaluate import Ranked
from recdistill.teachers.held_out import Excluded, held_out_ranks

if TYPE_CHECKING:
    from recdistill.teachers.ranking.teacher import RankingTeacher


def ranks_of_samples(teacher: "RankingTeacher", folder: Path | None) -> tuple[Ranked, Ranked, float]:
    """Ranks and best items of the validation and of the test samples, and the seconds it took.

    Samples of a user share a prompt where they follow each other. ``folder`` keeps what is read, so that a killed
    reading goes on.
    """
    data = teacher.data
    both, order = joined(data.validation, data.test)
    in_test = torch.from_numpy(order >= len(data.validation))
    new_validation, new_test = torch.from_numpy(data.new_validation), torch.from_numpy(data.new_test)
    # How samples are laid out in prompts must not depend on whose samples are asked for.
    everyone, _ = joined(data.whole.validation, data.whole.test) if data.whole is not None else (both, order)
    samples_a_user = -(-len(everyone) // len(np.unique(everyone.start)))

    def scores(batch: Batch) -> tuple[Tensor, Excluded]:
        return teacher.score(batch)[0], teacher.excluded(both, batch)

    def new(batch: Batch) -> list[tuple[Tensor, Tensor]]:
        tested = in_test[batch.sample]
        return [(new_validation, ~tested), (new_test, tested)]

    read = teacher.batches(both, shuffle=False, stride=min(teacher.stride, samples_a_user))
    found, seconds = held_out_ranks(teacher.processes, read, "teacher ranks", len(both), folder, scores, new)
    place = torch.from_numpy(order).argsort()
    first, second = place.split([len(data.validation), len(data.test)])
    return found.of(first), found.of(second), seconds


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
