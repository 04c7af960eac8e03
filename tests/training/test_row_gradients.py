import pytest
import torch
import torch.nn.functional as F

from recdistill.training.row_gradients import coalesced_gradient, read_rows

IDS = torch.tensor([1, 4, 6, 8])


@pytest.mark.parametrize("shape", [(9, 3), (9,)])
def test_rows_and_their_gradient_are_those_of_an_embedding(shape):
    torch.manual_seed(0)
    start, slope = torch.randn(shape), torch.randn(4, *shape[1:])
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    rows = read_rows(ours, IDS, learning=3)
    assert torch.equal(rows, start[IDS])
    (rows * slope).sum().backward()
    (theirs[IDS[:3]] * slope[:3]).sum().backward()
    assert ours.grad.is_sparse
    found = coalesced_gradient(ours)
    assert found.is_coalesced()
    assert found.indices()[0].tolist() == [1, 4, 6]
    assert torch.equal(found.to_dense(), theirs.grad)


def test_what_is_read_once_is_not_counted_again(monkeypatch):
    """On a GPU `Tensor.coalesce` waits for the device."""
    table = torch.nn.Parameter(torch.randn(9, 3))
    read_rows(table, IDS).square().sum().backward()
    monkeypatch.setattr(torch.Tensor, "coalesce", lambda _: pytest.fail("rows are counted"))
    assert coalesced_gradient(table).indices()[0].tolist() == IDS.tolist()


@pytest.mark.parametrize("second", [IDS, torch.tensor([0, 1, 4, 6]), torch.tensor([2])])
def test_rows_that_are_read_twice_are_summed(second):
    table = torch.nn.Parameter(torch.randn(9, 3))
    dense = torch.nn.Parameter(table.detach().clone())
    (read_rows(table, IDS).square().sum() + read_rows(table, second).sum()).backward()
    (F.embedding(IDS, dense).square().sum() + F.embedding(second, dense).sum()).backward()
    torch.testing.assert_close(coalesced_gradient(table).to_dense(), dense.grad)
    # Of a second backward pass, too.
    read_rows(table, second).sum().backward()
    F.embedding(second, dense).sum().backward()
    torch.testing.assert_close(coalesced_gradient(table).to_dense(), dense.grad)
