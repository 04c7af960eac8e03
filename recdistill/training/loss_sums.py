"""Sums of the losses of steps, kept on the device: reading a number there makes the program wait for all its work."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

#: Steps of a GPU between two looks at their losses. A CPU's are there at once.
LOOK_EVERY = 50


class LossSums:
    """The sums of losses by name since they were last taken."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._taken: dict[str, float] = {}

    def add(self, losses: Mapping[str, Tensor], share: float = 1.0) -> None:
        """Add ``share`` times the losses of a batch, scalars by name, in double precision."""
        names = tuple(losses)
        if self._sums is not None and names != self._names:
            self._read()
        values = torch.stack([loss.detach().reshape(()) for loss in losses.values()]).double() * share
        self._names, self._sums = names, values if self._sums is None else self._sums + values

    def take(self) -> dict[str, float]:
        """The sums so far, which begin again at nothing. Waits for the device."""
        self._read()
        taken, self._taken = self._taken, {}
        return taken

    def _read(self) -> None:
        if self._sums is not None:
            for name, value in zip(self._names, self._sums.tolist(), strict=True):
                self._taken[name] = self._taken.get(name, 0.0) + value
            self._sums = None


def steps_between_looks(devices: Collection[torch.device]) -> int:
    """After how many steps the losses of a training on these devices are looked at."""
    return 1 if all(device.type == "cpu" for device in devices) else LOOK_EVERY
