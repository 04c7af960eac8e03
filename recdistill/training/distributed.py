"""The processes of a launch (``accelerate launch``, torchrun): who writes, who computes what, how results meet.

Data parallel: every process holds all trained parameters, draws the same batches and computes its windows of each.
Gradients are summed with the weight of their samples, so that a step is that of one process over the whole batch;
trained parameters are few megabytes, which need no overlap of summing and computing. With ``--use_fsdp`` the frozen
base's layers are sharded besides (FSDP2, ``torch.distributed.fsdp.fully_shard``); what is trained stays whole.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from recdistill.errors import InputError

# The others wait while the main process trains the backbone.
TIMEOUT = timedelta(days=1)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process among those of its launch; by default one alone.

    Attributes:
        index: of this process. 0 is the main one, which alone writes.
        count: how many there are.
        device: where this one computes.
        sharded: whether a base's weights are divided over them. Each pass through it then takes all processes.
    """

    index: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    @property
    def bar_options(self) -> dict[str, Any]:
        """For tqdm: a bar in the main process alone, and there as the environment (``TQDM_DISABLE``) has it."""
        return {} if self.is_main else {"disable": True}

    def from_main(self, make: Callable[[], Item]) -> Item:
        """What ``make`` returns in the main process, in all of them. Where it raises there, the others end."""
        if self.count == 1:
            return make()
        sent: list[Any] = [False, None]
        try:
            if self.is_main:
                sent = [True, make()]
        finally:
            torch.distributed.broadcast_object_list(sent, src=0)
        made, item = sent
        if not made:
            # The main process says why and fails; a process that failed before it would have it killed unheard.
            raise SystemExit(0)
        return item

    @contextmanager
    def main_enters(self, context: AbstractContextManager[Item]) -> Iterator[Item]:
        """What ``context`` gives the main process, which alone enters and leaves it, in all processes."""
        with ExitStack() as stack:
            yield self.from_main(lambda: stack.enter_context(context))

    def main_first(self, make: Callable[[], Item]) -> Item:
        """``make`` in each process, in the main one before the others: it fills the caches that they then find."""
        made: list[Item] = []
        self.from_main(lambda: made.append(make()))
        return made[0] if made else make()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, where ``tensor`` is."""
        if self.count == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(tensor.device)

    def sum_values(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over the processes of numbers by name, in the same order everywhere."""
        if self.count == 1:
            return dict(values)
        total = self.sum(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist(), strict=True))

    def gathered(self, item: Item) -> list[Item]:
        """Every process's ``item``, in their order, in all of them."""
        if self.count == 1:
            return [item]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, item)
        return found

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Give each parameter the sum of its gradients over the processes."""
        if self.count == 1:
            return
        parameters = list(parameters)
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        # In one piece: a sum a parameter would wait hundreds of times.
        total = self.sum(torch.cat([gradient.flatten() for gradient in own])).split([one.numel() for one in parameters])
        holders = self.sum(torch.tensor([float(one.grad is not None) for one in parameters])).tolist()
        for one, gradient, held in zip(parameters, total, holders, strict=True):
            # What has a gradient nowhere stays without: weight decay alone would make Adam move it.
            one.grad = gradient.view_as(one).to(one.dtype) if held else None

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main one's values, in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), src=0)

    def share_out(self, works: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
        """This process's share of works that all processes list alike, and whether its result is asked for.

        It is not where a sharded base takes a process along that has no work left: it repeats another's.
        """
        for turn in groups_of(works, self.count):
            if self.index < len(turn):
                yield turn[self.index], True
            elif self.sharded:
                yield turn[0], False

    def seed_apart(self, step: int) -> None:
        """Give every process but the main one random numbers of its own, so that they drop out different entries."""
        if not self.is_main:
            torch.manual_seed(torch.initial_seed() + 7919 * self.index + 104729 * step)

    def shard(self, model: nn.Module) -> None:
        """Where the launch shards, divide a frozen transformers model and put it on this process's device.

        Each process holds all of it in main memory first; its device never does. Raises InputError where the model
        does not say which modules are its layers.
        """
        if self.sharded:
            shard_layers(model, self.device.type, self.count)
            model.to(self.device)


ALONE = Processes()


def join(device: torch.device) -> Processes:
    """Meet the other processes of this launch, on devices of the kind given; one alone where nothing was launched."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(device=device)
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
    return Processes(
        state.process_index, state.num_processes, state.device, bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))
    )


def shard_layers(model: nn.Module, device_type: str, count: int) -> None:
    """Divide the weights of each transformer layer over so many processes, in place. Raises InputError."""
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
    """So many items at a time, in order; the last group may have fewer."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group
