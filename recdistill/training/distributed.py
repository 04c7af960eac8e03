"""Training in several processes (``accelerate launch``, torchrun): the division of work and the sums over processes.

Training is data parallel: every process holds all trained parameters, draws the same batches and computes its part of
each. Gradients are summed with the weight of their samples, see `gradients`, so that a step equals that of one process
over the whole batch. With ``--use_fsdp`` the layers of the frozen base model are sharded (FSDP2,
``torch.distributed.fsdp.fully_shard``); trained parameters are not.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from recdistill.errors import InputError

# The other processes wait while the main process trains the backbone.
TIMEOUT = timedelta(days=1)

Item = TypeVar("Item")

#: Not empty while this process does something by itself, the others waiting or doing the same.
_by_itself: list[bool] = []


@contextmanager
def by_itself() -> Iterator[None]:
    """While it lasts, `join` gives this process alone: a step within it must not wait for processes that have none."""
    _by_itself.append(True)
    try:
        yield
    finally:
        _by_itself.pop()


@dataclass(frozen=True)
class Processes:
    """This process among those of its launch; by default there is only one.

    Attributes:
        index: of this process. 0 is the main process, the only one that writes.
        count: number of processes.
        device: of this process.
        sharded: whether the weights of the base model are divided over the processes. Each forward pass through it
            then needs all processes.
    """

    index: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.index == 0

    @property
    def bar_options(self) -> dict[str, Any]:
        """Arguments of tqdm: no progress bar but in the main process, and none there while ``TQDM_DISABLE`` is set."""
        # tqdm reads the variable as it is imported.
        return {} if self.is_main and not os.environ.get("TQDM_DISABLE") else {"disable": True}

    def from_main(self, make: Callable[[], Item]) -> Item:
        """Call ``make`` in the main process alone. Returns its result in all processes; where it raises, they end.

        A step that is run within has one process.
        """
        if self.count == 1:
            return make()
        sent: list[Any] = [False, None]
        try:
            if self.is_main:
                with by_itself():
                    sent = [True, make()]
        finally:
            torch.distributed.broadcast_object_list(sent, src=0)
        made, item = sent
        if not made:
            # The main process prints the reason and fails. A process that fails earlier would have it killed first.
            raise SystemExit(0)
        return item

    @contextmanager
    def main_enters(self, context: AbstractContextManager[Item]) -> Iterator[Item]:
        """Enter and leave ``context`` in the main process alone. Gives what it gives in all processes."""
        with ExitStack() as stack:
            yield self.from_main(lambda: stack.enter_context(context))

    def main_first(self, make: Callable[[], Item]) -> Item:
        """Call ``make`` in every process, in the main one first: it fills the caches that the others then read."""
        made: list[Item] = []
        self.from_main(lambda: made.append(make()))
        if made:
            return made[0]
        with by_itself():
            return make()

    def agreed(self, decision: bool) -> bool:
        """What the main process has decided, in all processes."""
        return bool(self.told(float(decision)))

    def told(self, number: float) -> float:
        """The main process's number, in all processes. Waits for the device."""
        if self.count == 1:
            return number
        sent = torch.tensor(number, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(sent, src=0)
        return float(sent)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            torch.distributed.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, on the device of ``tensor``."""
        if self.count == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(tensor.device)

    def sum_values(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over the processes of numbers by name. All processes give the same names in the same order."""
        if self.count == 1:
            return dict(values)
        total = self.sum(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist(), strict=True))

    def gathered(self, item: Item) -> list[Item]:
        """The ``item`` of every process, in the order of the processes, in all of them."""
        if self.count == 1:
            return [item]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, item)
        return found

    def sum_rows(self, gradient: Tensor) -> Tensor:
        """The sum over the processes of sparse gradients, whose rows may be others in each process."""
        if self.count == 1:
            return gradient
        own = gradient.coalesce()
        rows, values = own.indices()[0], own.values()
        counts = [int(one) for one in self._all(rows.new_tensor([len(rows)]))]
        # Processes exchange tensors of one size.
        missing = max(counts) - len(rows)
        parts = zip(
            self._all(torch.cat([rows, rows.new_zeros(missing)])),
            self._all(torch.cat([values, values.new_zeros(missing, *values.shape[1:])])),
            counts,
            strict=True,
        )
        found = [(rows[:count], values[:count]) for rows, values, count in parts]
        indices = torch.cat([rows for rows, _ in found]).unsqueeze(0)
        values = torch.cat([values for _, values in found])
        return torch.sparse_coo_tensor(indices, values, own.shape, check_invariants=False).coalesce()

    def _all(self, tensor: Tensor) -> list[Tensor]:
        """Each process's tensor, all of one shape, in the order of the processes."""
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        torch.distributed.all_gather(found, tensor.contiguous())
        return found

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process's values into every process's tensors, in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), src=0)

    def share_out(self, works: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
        """The works that this process does, of a list that is the same in all processes.

        Gives each work and whether its result is wanted. With a sharded base all processes compute equally often: one
        that has no work left repeats another's, and the result is not wanted.
        """
        for turn in groups_of(works, self.count):
            if self.index < len(turn):
                yield turn[self.index], True
            elif self.sharded:
                yield turn[0], False

    def seed_apart(self, step: int) -> None:
        """Seed every process but the main one with a seed of its own, so that their dropout differs."""
        if not self.is_main:
            torch.manual_seed(torch.initial_seed() + 7919 * self.index + 104729 * step)

    @contextmanager
    def random_apart(self, seed: int, number: int) -> Iterator[None]:
        """Have random numbers of this process's own within the context; behind it those of all processes go on.

        They depend on a seed, the number of the use and the process; of one process alone they are the usual ones.
        """
        if self.count == 1:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            drawn = np.random.SeedSequence([seed, number, self.index]).generate_state(1, np.uint64)
            torch.manual_seed(int(drawn[0] >> np.uint64(1)))
            yield

    def shard(self, model: nn.Module) -> None:
        """Divide a frozen transformers model over the processes, where the launch shards, and move it to the device.

        Each process first holds the whole model in main memory, but never on its device. Raises InputError where the
        model does not name its layers.
        """
        if self.sharded:
            shard_layers(model, self.device.type, self.count)
            model.to(self.device)


class SpacedDecision:
    """What the main process decides after steps, told to the others about once a second, as telling waits for devices.

    Where steps take long it is told after each; one process alone decides by itself.
    """

    #: Seconds between two times that a decision is told, and the most steps.
    seconds, most_steps = 1.0, 50

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._steps, self._left, self._told = 1, 1, time.perf_counter()

    def agreed(self, decision: bool) -> bool:
        """What the main process has decided; no where it is not told after this step. All call this after each step."""
        if self.processes.count == 1:
            return decision
        self._left -= 1
        if self._left:
            return False
        now = time.perf_counter()
        a_step = (now - self._told) / self._steps
        wanted = min(float(self.most_steps), max(1.0, self.seconds / max(a_step, 1e-9)))
        # Below zero where the decision is yes.
        told = self.processes.told(-wanted if decision else wanted)
        self._steps = self._left = int(abs(told))
        self._told = time.perf_counter()
        return told < 0


ALONE = Processes()


def join(device: torch.device) -> Processes:
    """The processes of this launch, on devices of the same type as ``device``.

    Only this one without a launch, and in what a process does by itself, see `by_itself`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _by_itself:
        return Processes(device=device)
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
    return Processes(
        state.process_index, state.num_processes, state.device, bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))
    )


def shard_layers(model: nn.Module, device_type: str, count: int) -> None:
    """Divide the weights of each transformer layer over ``count`` processes, in place.

    Raises InputError where the model does not name its layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    kinds = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    if not layers:
        raise InputError(f"--use_fsdp: {type(model).__name__} does not name its layers; launch without it")
    mesh = init_device_mesh(device_type, (count,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    # Embeddings are also read outside the model's forward pass: they stay whole.
    fully_shard(model, mesh=mesh, ignored_params=set(model.parameters()) - inside)


def groups_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in order, in groups of ``size``; the last group may be smaller."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group
