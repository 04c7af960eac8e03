import math

import pytest
import torch

from recdistill.errors import InputError
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.sasrec import SASRec, SelfAttention, asked_range


def test_attention_is_torchs_with_two_heads() -> None:
    attention = SelfAttention(8, heads=2, dropout=0.0)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter += torch.randn_like(parameter)
    states = torch.randn(3, 5, 8)
    normed = attention.query_norm(states)
    query, key, value = attention.query(normed), attention.key(states), attention.value(states)
    query, key, value = (x.view(3, 5, 2, 4).transpose(1, 2) for x in (query, key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    expected = expected.transpose(1, 2).reshape(3, 5, 8) + normed
    future = torch.full((5, 5), -math.inf).triu(1)
    torch.testing.assert_close(attention(states, future), expected, atol=1e-5, rtol=1e-5)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="heads=3: must divide hidden_size=8"):
        SASRec(ItemEmbedding(5, 8), blocks=1, heads=3, dropout=0.0, max_length=4, output="tied")


def test_initial_weights_are_small_and_biases_zero() -> None:
    model = SASRec(ItemEmbedding(500, 64), blocks=2, heads=1, dropout=0.0, max_length=50, output="linear")
    for name, parameter in model.named_parameters():
        if "norm" not in name and name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        elif name.endswith("bias"):
            assert parameter.eq(0).all(), name


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_in_training_only(dropout: float) -> None:
    model = SASRec(ItemEmbedding(5, 8), blocks=1, heads=1, dropout=dropout, max_length=4, output="tied")
    batch = torch.tensor([[1, 2, 3, 4]]), torch.tensor([4]), torch.tensor([0]), torch.tensor([3])
    assert torch.equal(model(*batch), model(*batch)) == (dropout == 0.0)
    model.eval()
    assert torch.equal(model(*batch), model(*batch))


def test_states_asked_of_some_positions_in_any_order_are_those_of_all() -> None:
    model = SASRec(ItemEmbedding(30, 8), blocks=2, heads=2, dropout=0.0, max_length=12, output="tied")
    history = torch.randint(30, (4, 12))
    length = torch.full((4,), 12)
    every = model(history, length, torch.arange(4).repeat_interleave(12), torch.arange(12).repeat(4)).view(4, 12, 8)
    row, column = torch.tensor([2, 0, 3, 2, 0]), torch.tensor([7, 11, 9, 6, 10])
    first, count = asked_range(row, column, 4, 12)
    assert count == 2
    assert first.tolist() == [10, 11, 6, 9]
    found = model(history, length, row, column)
    torch.testing.assert_close(found, every[row, column])
    # The gradient, too, is that of the whole.
    ours = torch.autograd.grad(found.square().sum(), model.items.embedding.weight)[0]
    theirs = torch.autograd.grad(every[row, column].square().sum(), model.items.embedding.weight)[0]
    torch.testing.assert_close(ours, theirs)
