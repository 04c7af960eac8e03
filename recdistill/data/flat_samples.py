"""The arrays of samples as tensors on one device: windows of histories and seen items are cut there."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recdistill.data.samples import Int64Array, Samples


def tensor_of(array: Int64Array, device: torch.device | str = "cpu") -> Tensor:
    """The array on a device, which is not waited for; on the CPU it is the same memory, where that may be written."""
    return torch.from_numpy(np.require(array, requirements="W")).to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Stretch:
    """W windows and their S samples, one window after another, on one device.

    Attributes:
        begin: int64 [W], where each window begins in the flat item array.
        end: int64 [W], where it ends.
        row: int64 [S], the number of each sample's window in its batch.
        column: int64 [S], position of the sample's last history item in its window.
        target: int64 [S], the next items.
        sample: int64 [S], index into the `Samples`.
    """

    begin: Tensor
    end: Tensor
    row: Tensor
    column: Tensor
    target: Tensor
    sample: Tensor


@dataclass(frozen=True, eq=False)
class FlatSamples:
    """The arrays of N `Samples`, whose attributes these are, on one device: 8 (T + 2 N) bytes, or 8 (T + 3 N).

    Nothing here reads a value, so that a device is not waited for.
    """

    items: Tensor
    start: Tensor
    end: Tensor
    target: Tensor | None

    @classmethod
    def of(cls, samples: Samples, device: torch.device | str = "cpu") -> "FlatSamples":
        """The arrays of the samples on a device."""
        items, start, end = (tensor_of(array, device) for array in (samples.items, samples.start, samples.end))
        return cls(items, start, end, None if samples.target is None else tensor_of(samples.target, device))

    @property
    def device(self) -> torch.device:
        """Where the arrays lie."""
        return self.items.device

    def stretch(self, chosen: Tensor, plan: Tensor, count: int, length: int) -> Stretch:
        """Lay out windows of at most ``length`` items, each up to the end of its last sample's history.

        Args:
            chosen: int64 [n], samples.
            plan: int64 [3, W], of each window the place in ``chosen`` of its first sample, the number of its samples,
                which adjoin there, and its number in its batch.
            count: S, the samples of all windows.
            length: the most items of a window.
        """
        first, size, number = plan.unbind()
        window = torch.repeat_interleave(size, output_size=count)
        offset = first + size - size.cumsum(0)
        place = offset.index_select(0, window).add_(torch.arange(count, device=self.device))
        sample = chosen.index_select(0, place)
        stop = self.end.index_select(0, sample)
        end = self.end.index_select(0, chosen.index_select(0, first + size - 1))
        begin = torch.maximum(self.start.index_select(0, chosen.index_select(0, first)), end - length)
        target = self.items.index_select(0, stop) if self.target is None else self.target.index_select(0, sample)
        column = stop.sub_(begin.index_select(0, window)).sub_(1)
        return Stretch(begin, end, number.index_select(0, window), column, target, sample)

    def windows(self, begin: Tensor, end: Tensor, column: Tensor, padding_id: int) -> Tensor:
        """``items[begin[i]:end[i]]`` as rows of int64 [W, L], right-padded; none may exceed L.

        Args:
            begin: int64 [W, 1].
            end: int64 [W, 1].
            column: int64 [L], 0 to L - 1.
            padding_id: of the padding.
        """
        place = begin + column
        late = place >= end
        place.clamp_(max=len(self.items) - 1)
        return self.items.index_select(0, place.view(-1)).view(place.shape).masked_fill_(late, padding_id)

    def lengths(self, sample: Tensor) -> Tensor:
        """The number of items in the whole histories of samples [S], int64 [S]."""
        return self.end.index_select(0, sample) - self.start.index_select(0, sample)

    def seen(self, sample: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Every item of the whole histories of samples [S], ``count`` in all: see `Samples.seen`."""
        lengths = self.lengths(sample)
        rows = torch.repeat_interleave(lengths, output_size=count)
        offset = self.end.index_select(0, sample) - lengths.cumsum(0)
        place = offset.index_select(0, rows).add_(torch.arange(count, device=self.device))
        return rows, self.items.index_select(0, place)
