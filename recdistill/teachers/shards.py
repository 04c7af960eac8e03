"""What a teacher reads batch after batch, each process its share, kept as it comes: a kill loses 20 seconds of it."""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from recdistill.training.checkpoint import read_checkpoint, write_checkpoint
from recdistill.training.distributed import Processes

SHARD_SECONDS = 20.0
Work = TypeVar("Work", bound=Sized)


def shared_batches(
    processes: Processes, batches: Iterable[Work], title: str, total: int, done: Container[int] = ()
) -> Iterator[tuple[int, Work, bool]]:
    """This process's share of the batches whose place is not in ``done``, under a bar that counts their members.

    Yields a batch's place, the batch, and whether its result is wanted; see `Processes.share_out`.
    """
    with tqdm(total=total, desc=title, leave=False, **processes.bar_options) as bar:

        def missing() -> Iterator[tuple[int, Work]]:
            for place, batch in enumerate(batches):
                if place not in done:
                    yield place, batch
                bar.update(len(batch))

        for (place, batch), wanted in processes.share_out(missing()):
            yield place, batch, wanted


def read_through(
    processes: Processes,
    batches: Iterable[Work],
    title: str,
    total: int,
    folder: Path | None,
    read: Callable[[Work], dict[str, Tensor]],
) -> tuple[dict[str, Tensor], float]:
    """What ``read`` gives of all batches, one after another in no order, in all processes; and the seconds it took.

    Those of killed readings count, the mean over the processes.

    Args:
        processes: those that share the batches.
        batches: the same in all processes.
        title: of the bar.
        total: members of all batches, for the bar.
        folder: for shards, from which a killed reading goes on, the same for all processes; None to keep none.
        read: of a batch; its tensors' first dimension is the batch's. They come back on the CPU.
    """
    shards = Shards(folder, processes.index)
    # A process that wrote now would have another find less to do than the rest.
    processes.wait()
    for place, batch, wanted in shared_batches(processes, batches, title, total, shards.done):
        found = read(batch)
        if wanted:
            shards.add(place, found)
    if folder is None:
        seconds = sum(processes.gathered(shards.seconds_since_begun)) / processes.count
        return concatenated([part for own in processes.gathered(shards.waiting) for part in own]), seconds
    shards.write()
    processes.wait()
    return shards.read(), seconds_on_disk(folder)


class Shards:
    """Results on disk as they come, in one folder for all processes: a kill loses 20 seconds of them.

    Without a folder they wait in memory.

    Attributes:
        done: places of the batches whose results were on disk at first.
    """

    def __init__(self, folder: Path | None, process: int = 0) -> None:
        self.folder = folder
        self.process = process
        self.waiting: list[dict[str, Tensor]] = []
        self.places: list[int] = []
        self.begun = self.written = time.perf_counter()
        self.done = {place for _, values in self.on_disk() for place in values["places"]}

    def add(self, place: int, found: dict[str, Tensor]) -> None:
        """Keep the results of the batch at a place."""
        self.waiting.append({name: tensor.cpu() for name, tensor in found.items()})
        self.places.append(place)
        if self.folder is not None and time.perf_counter() - self.written > SHARD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the results that are not on disk yet."""
        if self.folder is not None and self.waiting:
            number = len(list(self.folder.glob(f"shard-{self.process:03d}-*.safetensors")))
            path = self.folder / f"shard-{self.process:03d}-{number:05d}.safetensors"
            seconds = time.perf_counter() - self.written
            write_checkpoint(path, concatenated(self.waiting), {"places": self.places, "seconds": seconds})
        self.waiting, self.places, self.written = [], [], time.perf_counter()

    @property
    def seconds_since_begun(self) -> float:
        """Seconds of this process since it was made."""
        return time.perf_counter() - self.begun

    def read(self) -> dict[str, Tensor]:
        """All results, of all processes."""
        return concatenated([tensors for tensors, _ in self.on_disk()])

    def on_disk(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        """Every shard that can be read; the batches of another one are computed again."""
        for path in sorted(self.folder.glob("shard-*.safetensors")) if self.folder is not None else ():
            found = read_checkpoint(path)
            if found is not None:
                yield found


def seconds_on_disk(folder: Path) -> float:
    """Seconds that the shards of a folder took, the mean over the processes that wrote any."""
    seconds: dict[str, float] = {}
    for path in folder.glob("shard-*.safetensors"):
        found = read_checkpoint(path)
        process = path.name.split("-")[1]
        seconds[process] = seconds.get(process, 0.0) + (0.0 if found is None else float(found[1].get("seconds", 0.0)))
    return sum(seconds.values()) / max(1, len(seconds))


def concatenated(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of the same name, one after another."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
