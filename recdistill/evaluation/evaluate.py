"""Ranks over a whole split, in chunks of bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recdistill.data.samples import Int64Array, Samples
from recdistill.evaluation.ranking import best_items, rank_among, rank_of_target

ScoreFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# Scores held at a time, whatever V is: 16 MiB in float32, which the allocator keeps between chunks.
MAX_SCORES = 1 << 22
# Items that a student reads at a time on a CPU: what it makes of them stays in the cache.
CPU_PLACES = 9_600
# Samples whose histories are put in order of their length at a time.
SORTED = 1 << 16


@dataclass(frozen=True, eq=False)
class Ranked:
    """How a model ranked N samples.

    Attributes:
        ranks: int64 [N], the target's rank among all items, 1 the best.
        best: int64 [N, k], the items it ranks first, best first; V, which is no item, where fewer are left.
        among: int64 [N], the target's rank among the new items alone, 0 where it is none; None where there are none.
    """

    ranks: Tensor
    best: Tensor
    among: Tensor | None = None

    def of(self, samples: Tensor) -> "Ranked":
        """Of the samples at these places, int64 [M], in this order."""
        among = None if self.among is None else self.among[samples]
        return Ranked(self.ranks[samples], self.best[samples], among)


@torch.no_grad()
def rank_samples(
    score: ScoreFunction,
    samples: Samples,
    *,
    num_items: int,
    max_length: int,
    keep: int = 0,
    batch_size: int = 512,
    places: int | None = None,
    exclude_seen: bool = True,
    among: Int64Array | None = None,
    progress: bool = False,
) -> Ranked:
    """Rank each sample's target among all ``num_items`` items, and keep the ``keep`` best items.

    Args:
        score: takes history int64 [B, L] right-padded with V, L the longest of them, length [B], row [B] and column
            [B], all on the CPU, and returns scores [B, V] on any device. Put the model in eval mode first.
        samples: N samples, e.g. ``SequenceData.test``.
        max_length: history items the model reads, at most; exclusion always looks at the whole history.
        keep: k, how many of the best items to keep.
        batch_size: samples scored at a time, those of like length together; fewer where V is very large.
        places: B x L of a chunk, at most; None for no limit.
        exclude_seen: leave a sample's history out of its ranking; a target that it has is a miss, rank V + 1.
        among: items, int64 [n], e.g. ``SequenceData.new_test``: rank their samples among them alone, too.
        progress: show a bar.

    Returns tensors on the CPU. Raises InputError for a score that is NaN, ValueError for scores of another shape.
    """
    targets = torch.as_tensor(samples.targets)
    step = max(1, min(batch_size, MAX_SCORES // num_items))
    ranks = torch.empty(len(samples), dtype=torch.int64)
    best = torch.empty(len(samples), keep, dtype=torch.int64)
    chosen = None if among is None or not len(among) else torch.as_tensor(among)
    ranks_among = None if chosen is None else torch.empty(len(samples), dtype=torch.int64)
    bar = tqdm(total=len(samples), desc="rank", disable=not progress, leave=False)
    for index, width in chunks_of_like_length(samples, max_length, step, places):
        history, length = (torch.as_tensor(part) for part in samples.windows_of(index, width, num_items))
        scores = score(history, length, torch.arange(len(index)), length - 1)
        if tuple(scores.shape) != (len(index), num_items):
            raise ValueError(f"scores have shape {tuple(scores.shape)}, not {(len(index), num_items)}")
        rows, items = (torch.as_tensor(part) for part in samples.seen(index)) if exclude_seen else (None, None)
        excluded = None if rows is None or items is None else (rows, items)
        place = torch.as_tensor(index)
        own = targets[place]
        ranks[place] = rank_of_target(scores, own, excluded).cpu()
        if keep:
            best[place] = best_items(scores, keep, excluded).cpu()
        if chosen is not None and ranks_among is not None:
            ranks_among[place] = rank_among(scores, own, chosen, excluded).cpu()
        bar.update(len(index))
    bar.close()
    return Ranked(ranks, best, ranks_among)


def places_at_once(device: torch.device) -> int | None:
    """How many items of histories a student reads at a time at best; None for no limit."""
    return CPU_PLACES if device.type == "cpu" else None


def chunks_of_like_length(
    samples: Samples, max_length: int, most: int, places: int | None = None
) -> Iterator[tuple[Int64Array, int]]:
    """Chunks of at most ``most`` samples, each sample in one: their indices, and the longest history that is read.

    Short histories are then not padded to long ones. A chunk holds at most ``places`` items, or one sample.
    """
    for start in range(0, len(samples), SORTED):
        part = slice(start, start + SORTED)
        length = np.minimum(samples.end[part] - samples.start[part], max_length)
        order = np.argsort(length, kind="stable")
        length = length[order]
        begin = 0
        while begin < len(order):
            end = min(begin + most, len(order))
            if places is not None and length[end - 1] * (end - begin) > places:
                held = np.arange(1, end - begin + 1) * length[begin:end]
                end = begin + max(1, int(np.searchsorted(held, places, side="right")))
            yield start + order[begin:end], int(length[end - 1])
            begin = end
