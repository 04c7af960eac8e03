import torch
import torch.nn.functional as F

from recdistill.training.checkpoint import optimizer_tensors, restore_optimizer
from recdistill.training.row_adam import RowAdam

ROWS, WIDTH = 9, 3


def trained(optimizer_of, ids_of_steps, sparse):
    torch.manual_seed(0)
    table, other = torch.nn.Parameter(torch.randn(ROWS, WIDTH)), torch.nn.Parameter(torch.randn(WIDTH))
    optimizer = optimizer_of([table, other])
    for ids in ids_of_steps:
        (F.embedding(torch.tensor(ids), table, sparse=sparse) * other).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return table.detach(), other.detach(), optimizer


def test_with_every_row_in_use_it_is_adam() -> None:
    steps = [list(range(ROWS)), [*range(ROWS), 2, 2]] * 3
    for decay in (0.0, 0.1):
        ours = trained(lambda given, decay=decay: RowAdam(given, lr=0.05, weight_decay=decay), steps, sparse=True)
        adam = trained(
            lambda given, decay=decay: torch.optim.Adam(given, lr=0.05, weight_decay=decay), steps, sparse=False
        )
        for found, expected in zip(ours[:2], adam[:2], strict=True):
            torch.testing.assert_close(found, expected)


def test_of_some_rows_it_is_torchs_sparse_adam_and_leaves_the_others() -> None:
    steps = [[0, 3], [3, 3, 5], [0]]
    table, _, optimizer = trained(lambda given: RowAdam(given, lr=0.05), steps, sparse=True)

    def both(given):
        sparse, dense = torch.optim.SparseAdam(given[:1], lr=0.05), torch.optim.Adam(given[1:], lr=0.05)

        class Both:
            def step(self):
                sparse.step(), dense.step()

            def zero_grad(self):
                sparse.zero_grad(), dense.zero_grad()

        return Both()

    torch.testing.assert_close(table, trained(both, steps, sparse=True)[0])
    start = trained(lambda given: RowAdam(given, lr=0.05), [], sparse=True)[0]
    unused = [1, 2, 4, 6, 7, 8]
    assert torch.equal(table[unused], start[unused])
    assert not optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"][unused].any()


def test_a_checkpoint_goes_on_to_the_last_bit() -> None:
    steps = [[0, 3], [3, 5], [0, 8], [3]]
    whole, other, _ = trained(lambda given: RowAdam(given, lr=0.05), steps, sparse=True)
    table, second, optimizer = trained(lambda given: RowAdam(given, lr=0.05), steps[:2], sparse=True)
    table, second = torch.nn.Parameter(table), torch.nn.Parameter(second)
    resumed = RowAdam([table, second], lr=0.05)
    restore_optimizer(resumed, optimizer_tensors(optimizer))
    for ids in steps[2:]:
        (F.embedding(torch.tensor(ids), table, sparse=True) * second).square().sum().backward()
        resumed.step()
        resumed.zero_grad()
    assert torch.equal(table.detach(), whole)
    assert torch.equal(second.detach(), other)
