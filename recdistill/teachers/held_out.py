"""Ranks of a teacher on held-out samples, read batch after batch."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from recdistill.data.batches import Batch
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.ranking import best_items, rank_among, rank_of_target
from recdistill.students.measure import KEPT
from recdistill.teachers.shards import read_through
from recdistill.training.distributed import Processes

Excluded = tuple[Tensor, Tensor] | None


@torch.inference_mode()
def held_out_ranks(
    processes: Processes,
    batches: Iterable[Batch],
    title: str,
    total: int,
    folder: Path | None,
    scores: Callable[[Batch], tuple[Tensor, Excluded]],
    new: Callable[[Batch], list[tuple[Tensor, Tensor]]],
) -> tuple[Ranked, float]:
    """Ranks and best items of samples, in the samples' order, and the seconds that they took.

    Args:
        processes: those that share the batches.
        batches: of all samples, the same in all processes.
        title: of the bar.
        total: samples.
        folder: from which a killed reading goes on, see `read_through`.
        scores: of a batch, [S, V], and rows and columns of the items that are left out of its rankings.
        new: of a batch, ids of new items, and which of its samples [S] are ranked among these alone, as pairs.
    """

    def read(batch: Batch) -> dict[str, Tensor]:
        given, excluded = scores(batch)
        among = torch.zeros(len(batch), dtype=torch.int64)
        for items, samples in new(batch):
            among = torch.where(samples, rank_among(given, batch.target, items, excluded).cpu(), among)
        return {
            "sample": batch.sample,
            "rank": rank_of_target(given, batch.target, excluded).cpu(),
            "best": best_items(given, KEPT, excluded).cpu(),
            "among": among,
        }

    found, seconds = read_through(processes, batches, title, total, folder, read)
    order = found["sample"].argsort()
    ranked = Ranked(*(found[name][order] for name in ("rank", "best", "among")))
    return ranked, seconds
