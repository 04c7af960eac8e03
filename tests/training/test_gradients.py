"""Gradients summed over processes; `tests/students/test_processes.py` compares whole trainings."""

import threading
from dataclasses import dataclass, field

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.training.distributed import ALONE, Processes
from recdistill.training.gradients import SummedGradients

ROWS = 7


@dataclass
class Meeting:
    """Where threads that stand for processes exchange tensors."""

    count: int
    barrier: threading.Barrier = field(init=False)
    given: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier, self.given = threading.Barrier(self.count), [torch.empty(0)] * self.count


@dataclass(frozen=True)
class Thread(Processes):
    """A process that is a thread of this one."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def _all(self, tensor: Tensor) -> list[Tensor]:
        self.meeting.given[self.index] = tensor
        self.meeting.barrier.wait()
        found = list(self.meeting.given)
        self.meeting.barrier.wait()
        # What a collective call needs.
        assert len({one.shape for one in found}) == 1
        return found


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, ROWS - 1), max_size=6), min_size=2, max_size=4))
def test_sparse_gradients_of_other_rows_are_summed(rows: list[list[int]]) -> None:
    meeting, count = Meeting(len(rows)), len(rows)
    gradients = [
        torch.sparse_coo_tensor(torch.tensor([own], dtype=torch.int64), torch.randn(len(own), 3), (ROWS, 3))
        for own in rows
    ]
    sums: list[Tensor] = [torch.empty(0)] * count

    def work(index: int) -> None:
        sums[index] = Thread(index, count, meeting=meeting).sum_rows(gradients[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    expected = torch.stack([one.to_dense() for one in gradients]).sum(dim=0)
    for found in sums:
        assert found.is_coalesced()
        torch.testing.assert_close(found.to_dense(), expected)
        assert torch.equal(found.values(), sums[0].values())
        # A row without a gradient stays without: the optimizer leaves it as it is.
        assert set(found.indices()[0].tolist()) == {row for own in rows for row in own}


def test_one_process_calls_the_step_itself() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    step = SummedGradients(lambda batch: {"total": (weight * batch).sum()}, [weight], [], ALONE)
    with step.kept_back(last=False):
        step(torch.tensor([3.0, 4.0]))["total"].backward()
    step.sum_sparse()
    assert step.module is None
    assert step.factor == 1
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 4.0]
