"""Ranks of a generative teacher on the validation and test samples, by its grounded answers."""

import time
from typing import TYPE_CHECKING

import torch

from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.ranking import best_items, rank_among, rank_of_target
from recdistill.students.measure import KEPT
from recdistill.teachers.scoring import shared_batches

if TYPE_CHECKING:
    from recdistill.teachers.generative.teacher import GenerativeTeacher


@torch.inference_mode()
def grounded_ranks(teacher: "GenerativeTeacher") -> tuple[Ranked, Ranked, float]:
    """Ranks and best items of the validation and of the test samples, and the seconds it took."""
    started = time.perf_counter()
    ranked = []
    data = teacher.data
    parts = (("validation", data.validation, data.new_validation), ("test", data.test, data.new_test))
    for part, samples, new in parts:
        ranks = torch.zeros(len(samples), dtype=torch.int64)
        best = torch.zeros(len(samples), KEPT, dtype=torch.int64)
        among = torch.zeros(len(samples), dtype=torch.int64)
        read = teacher.batches(samples, shuffle=False)
        for _, batch, _ in shared_batches(teacher.processes, read, f"{part} ranks", len(samples)):
            scores, excluded = -teacher.grounded(samples, batch)[0], teacher.excluded(samples, batch)
            ranks[batch.sample] = rank_of_target(scores, batch.target, excluded).cpu()
            best[batch.sample] = best_items(scores, KEPT, excluded).cpu()
            among[batch.sample] = rank_among(scores, batch.target, torch.from_numpy(new), excluded).cpu()
        found = (teacher.processes.sum(one) for one in (ranks, best, among))
        ranked.append(Ranked(*found))
    return ranked[0], ranked[1], time.perf_counter() - started
