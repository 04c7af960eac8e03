"""Ranks of a generative teacher on the validation and test samples, by its grounded answers."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recdistill.data.batches import Batch
from recdistill.data.samples import Samples
from recdistill.evaluation.evaluate import Ranked
from recdistill.teachers.held_out import Excluded, held_out_ranks

if TYPE_CHECKING:
    from recdistill.teachers.generative.teacher import GenerativeTeacher


def grounded_ranks(teacher: "GenerativeTeacher", folder: Path | None) -> tuple[Ranked, Ranked, float]:
    """Ranks and best items of the validation and of the test samples, and the seconds it took.

    ``folder`` keeps what is read, so that a killed reading goes on.
    """
    data = teacher.data
    new_items = [torch.from_numpy(items) for items in (data.new_validation, data.new_test)]
    ranked = []
    for part, samples, among in zip(("validation", "test"), (data.validation, data.test), new_items, strict=True):

        def scores(batch: Batch, samples: Samples = samples) -> tuple[Tensor, Excluded]:
            return -teacher.grounded(samples, batch)[0], teacher.excluded(samples, batch)

        def new(batch: Batch, items: Tensor = among) -> list[tuple[Tensor, Tensor]]:
            return [(items, torch.ones(len(batch), dtype=torch.bool))]

        read = teacher.batches(samples, shuffle=False)
        own = None if folder is None else folder / part
        ranked.append(held_out_ranks(teacher.processes, read, f"{part} ranks", len(samples), own, scores, new))
    (validation, before), (test, after) = ranked
    return validation, test, before + after
