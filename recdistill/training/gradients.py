"""The gradients of several processes, summed: by `torch.nn.parallel.DistributedDataParallel` while they are computed.

DDP takes the mean over processes of what each one's backward pass gives. A process's loss is therefore multiplied by
the number of processes, and by its share of the samples of the batch: what comes out is the gradient of one process.
DDP cannot be told of a table whose gradient is sparse only in some losses, and NCCL sums no sparse tensors: the rows
of such gradients are summed here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recdistill.training.distributed import Processes
from recdistill.training.row_gradients import coalesced_gradient

Step = Callable[[Any], dict[str, Tensor]]


class StepModule(nn.Module):
    """The losses of a batch as the forward pass of a module that has what is trained."""

    def __init__(self, step: Step, trained: Iterable[Tensor]) -> None:
        super().__init__()
        self.step = step
        self.trained = nn.ParameterList(trained)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The losses by name."""
        return self.step(batch)


class SummedGradients:
    """Calls the step so that the backward pass of its losses sums the gradients over the processes.

    Args:
        step: gives the losses of a batch by name.
        trained: the parameters that an optimizer changes, the same in every process.
        row_sparse: those among them whose gradient is sparse.
        processes: of the launch; one alone sums nothing.
    """

    def __init__(self, step: Step, trained: list[Tensor], row_sparse: list[Tensor], processes: Processes) -> None:
        self.processes, self.row_sparse = processes, row_sparse
        self.step, self.module = step, None
        if processes.count > 1:
            sparse = {id(one) for one in row_sparse}
            dense = StepModule(step, [one for one in trained if id(one) not in sparse])
            # A loss term may leave a parameter unused, in one process or in all.
            self.module = DistributedDataParallel(dense, find_unused_parameters=True)

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """The losses of this process's part of a batch."""
        return self.step(batch) if self.module is None else self.module(batch)

    @property
    def factor(self) -> int:
        """What a loss is multiplied by, for DDP divides by it."""
        return self.processes.count

    @contextmanager
    def kept_back(self, last: bool) -> Iterator[None]:
        """Sum nothing in the backward passes within the context, save of the last batch of a step."""
        if self.module is None or last:
            yield
        else:
            with self.module.no_sync():
                yield

    def sum_sparse(self) -> None:
        """Sum the gradients that DDP does not, each row once, behind the last backward pass of a step."""
        for parameter in self.row_sparse:
            if self.module is not None:
                assert parameter.grad is not None
                parameter.grad = self.processes.sum_rows(parameter.grad) / self.factor
            elif parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = coalesced_gradient(parameter)
