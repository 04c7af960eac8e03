"""Batches of windows: a causal student reads a window once, and predicts all of its samples."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from recdistill.data.flat_samples import FlatSamples, tensor_of
from recdistill.data.samples import Int64Array, Samples

#: About how many samples are laid out at a time: few operations a batch, and little memory.
STRETCH = 2**16
#: Tensors of a batch that stay where they are: what they point into is on the CPU, or was cut on the device.
STAYING = ("sample", "place", "there")


@dataclass(frozen=True, eq=False)
class Batch:
    """W windows holding S samples; sample s is predicted from the state at ``(row[s], column[s])``.

    Attributes:
        history: int64 [W, L], right-padded with the padding id; L is the longest window's.
        length: int64 [W], real items in each window.
        row: int64 [S], the sample's window.
        column: int64 [S], position of the last history item of the sample in its window.
        target: int64 [S], the next item.
        sample: int64 [S], index into the `Samples` that the batch was drawn from.
    """

    history: Tensor
    length: Tensor
    row: Tensor
    column: Tensor
    target: Tensor
    sample: Tensor

    def __len__(self) -> int:
        """S, the number of samples."""
        return len(self.target)

    def histories(self, padding_id: int) -> Tensor:
        """The history of each sample in its window, int64 [S, L]: the items up to its column, then padding."""
        later = torch.arange(self.history.shape[1], device=self.column.device) > self.column.unsqueeze(1)
        return self.history[self.row].masked_fill(later, padding_id)

    def part(self, index: int, count: int) -> tuple["BatchPart", float]:
        """Every ``count``-th window, from the ``index``-th on, and their share of the samples.

        Where there is no such window, the first one stands in with a share of 0: each process then has one to compute.
        """
        windows = len(self.history)
        absent = index >= windows
        chosen = torch.tensor([0]) if absent else torch.arange(index, windows, count)
        place = torch.full((windows,), -1).index_put((chosen,), torch.arange(len(chosen)))
        kept = (place[self.row] >= 0).nonzero().squeeze(1)
        part = BatchPart(
            history=self.history[chosen],
            length=self.length[chosen],
            row=place[self.row[kept]],
            column=self.column[kept],
            target=self.target[kept],
            sample=self.sample[kept],
            place=kept,
            whole=len(self),
        )
        return part, 0.0 if absent else len(part) / len(self)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device, but for ``sample`` and ``place``: what they point into is on the CPU.

        The device is not waited for.
        """
        values = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in STAYING}
        moved = {
            name: value.to(device, non_blocking=True) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class BatchPart(Batch):
    """Some windows of a batch, as a process of several computes them.

    Attributes:
        place: int64 [S], the position of each sample in the whole batch.
        whole: samples of the whole batch.
    """

    place: Tensor
    whole: int


@dataclass(frozen=True, eq=False)
class DeviceBatch(Batch):
    """A batch that was cut on a device, from what lies there; ``sample`` alone is on the CPU.

    `Batch.part` is not for it: what several processes divide is cut on the CPU.

    Attributes:
        there: int64 [S], ``sample`` on the device.
        seen_count: M, the items of all the samples' histories.
        flat: the samples' arrays on the device.
    """

    there: Tensor
    seen_count: int
    flat: FlatSamples

    def seen(self) -> tuple[Tensor, Tensor]:
        """`seen_items` of the samples, cut on the device, which is not waited for: int64 [M], both."""
        return self.flat.seen(self.there, self.seen_count)


def seen_items(samples: Samples, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Items of the whole histories at ``index`` [n]: rows int64 [M], ascending, and items [M]; see `Samples.seen`."""
    rows, items = samples.seen(index.cpu().numpy())
    return torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device)


def batches(
    samples: Samples,
    *,
    length: int,
    batch_size: int,
    stride: int,
    padding_id: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    index: ArrayLike | None = None,
    flat: FlatSamples | None = None,
) -> Iterator[Batch]:
    """Draw one epoch: each sample (of ``index``, where given) exactly once, in batches of about ``batch_size``.

    Consecutive samples of one history share a window, up to ``stride`` of them. A window is the last
    ``length`` items before its last sample's target, so a sample sees at least ``length - stride + 1`` items
    where its history has them. ``stride=1`` gives every sample a window of its own and its full context.

    Shuffling also moves each user's window borders, and depends on ``(seed, epoch)`` alone, so that a resumed
    run draws the same batches. A batch holds more than ``batch_size - stride`` and fewer than
    ``batch_size + stride`` samples, the last one excepted; where ``stride <= batch_size`` there are
    ``ceil(samples / batch_size)`` of them in every epoch. Without shuffling, samples of ``stride=1`` come in the order
    of ``index``, others in their own.

    With ``flat``, the samples' arrays on a device, each is a `DeviceBatch` with the same numbers: an epoch's plan is
    copied there once, and a batch reads nothing back and needs no copy. Without, batches are on the CPU, where several
    processes divide them (`Batch.part`), and where what drawn negatives have in use is found.

    Raises ValueError unless ``1 <= stride <= length`` and ``batch_size >= 1``.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride={stride}: must be at least 1 and at most length={length}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    chosen = np.arange(len(samples)) if index is None else np.asarray(index, dtype=np.int64)
    if stride > 1:
        # Samples that share a window must adjoin; the others stay in their order, as that in which they are asked for.
        chosen = np.sort(chosen)
    random = np.random.default_rng([seed, epoch]) if shuffle else None
    return draw(samples, chosen, length, batch_size, stride, padding_id, random, flat)


def draw(
    samples: Samples,
    chosen: Int64Array,
    length: int,
    batch_size: int,
    stride: int,
    padding_id: int,
    random: np.random.Generator | None,
    flat: FlatSamples | None = None,
) -> Iterator[Batch]:
    """Yield batches over the samples ``chosen`` [S], ascending where windows are shared; in order if not ``random``.

    An epoch is planned on the CPU, so that its batches are the same on every device, and all sizes are found there, so
    that no device is asked for one. From the plan batches are cut where ``flat`` lies, by default on the CPU: most
    operations are for many batches at a time.
    """
    if not len(chosen):
        return
    plan, borders = planned(samples, chosen, batch_size, stride, random)
    here = FlatSamples.of(samples)
    there = here if flat is None else flat
    chosen_here, plan_here = tensor_of(chosen), tensor_of(plan)
    chosen_there, plan_there = (one.to(there.device, non_blocking=True) for one in (chosen_here, plan_here))
    places = torch.arange(length, device=there.device)
    at_once = max(1, STRETCH // batch_size)
    for number in range(0, len(borders) - 1, at_once):
        cuts = borders[number : number + at_once + 1]
        part, heads, windows = slice(cuts[0], cuts[-1]), cuts[:-1] - cuts[0], np.diff(cuts).tolist()
        sizes = np.add.reduceat(plan[1, part], heads).tolist()
        known = here.stretch(chosen_here, plan_here[:, part], sum(sizes), length)
        widths = np.maximum.reduceat((known.end - known.begin).numpy(), heads).tolist()
        cut, seen = known, [0] * len(sizes)
        if flat is not None:
            cut = flat.stretch(chosen_there, plan_there[:, part], sum(sizes), length)
            seen = [int(one.sum()) for one in here.lengths(known.sample).split(sizes)]
        by_window = (one.split(windows) for one in (cut.begin.unsqueeze(1), cut.end.unsqueeze(1), cut.end - cut.begin))
        by_sample = (one.split(sizes) for one in (cut.row, cut.column, cut.target, known.sample, cut.sample))
        for width, count, begin, end, real, *given, sample in zip(widths, seen, *by_window, *by_sample, strict=True):
            batch = Batch(there.windows(begin, end, places[:width], padding_id), real, *given)
            yield batch if flat is None else DeviceBatch(**vars(batch), there=sample, seen_count=count, flat=flat)


def planned(
    samples: Samples, chosen: Int64Array, batch_size: int, stride: int, random: np.random.Generator | None
) -> tuple[Int64Array, Int64Array]:
    """The W windows of an epoch in their order, and its B batches.

    Returns int64 [3, W]: the place in ``chosen`` of each window's first sample, its number of samples, and its number
    in its batch; and int64 [B + 1]: the window that each batch begins with, and W.
    """
    first = window_starts(samples, chosen, stride, random)
    size = np.diff(first, append=len(chosen))
    if random is not None:
        order = random.permutation(len(first))
        first, size = first[order], size[order]
    # A window belongs to the batch of its last sample: the number of batches is then the same every epoch.
    batch_of_window = (np.cumsum(size) - 1) // batch_size
    borders = np.concatenate([[0], np.flatnonzero(np.diff(batch_of_window)) + 1, [len(first)]])
    number = np.arange(len(first)) - np.repeat(borders[:-1], np.diff(borders))
    return np.stack([first, size, number]), borders


def window_starts(samples: Samples, chosen: Int64Array, stride: int, random: np.random.Generator | None) -> Int64Array:
    """Positions in ``chosen`` where a window begins: at the first sample of a run, and every ``stride`` samples in it.

    A run is samples of one history whose targets follow each other, or whose histories are the same, as around the
    target of a new item. With ``random``, each run's first window is shortened by its own random number of samples.
    """
    user, start, end = samples.user[chosen], samples.start[chosen], samples.end[chosen]
    begins = np.ones(len(chosen), dtype=bool)
    step = np.diff(end)
    begins[1:] = (user[1:] != user[:-1]) | (start[1:] != start[:-1]) | (step < 0) | (step > 1)
    run_start = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    position = np.arange(len(chosen)) - run_start[run]
    if random is not None:
        position = position + random.integers(stride, size=len(run_start))[run]
    return np.flatnonzero(begins | (position % stride == 0))
