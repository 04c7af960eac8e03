"""Layers of a GRU, with their gradients, are those of `torch.nn.GRU`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recdistill.students.gru_layers import gru_states, pays


def both(gru: nn.GRU, inputs: Tensor, weight: Tensor) -> list[list[Tensor]]:
    """States, and gradients of a weighted sum of them at the inputs and all weights: ours, and PyTorch's."""
    found = []
    for states_of in (gru_states, lambda gru, inputs: gru(inputs)[0]):
        given_inputs = inputs.clone().requires_grad_()
        torch.manual_seed(5)
        states = states_of(gru, given_inputs)
        leaves = [given_inputs, *gru.parameters()]
        found.append([states.detach(), *torch.autograd.grad((states * weight).sum(), leaves)])
    return found


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 6), st.integers(1, 9), st.integers(1, 7), st.integers(1, 3), st.sampled_from([0.0, 0.5]),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_states_and_gradients_are_those_of_pytorch(
    windows: int, length: int, size: int, layers: int, dropout: float, training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    gru = nn.GRU(size, size, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0).double()
    gru.train(training)
    shape = (windows, length, size)
    for found, expected in zip(*both(gru, 3 * torch.randn(shape).double(), torch.randn(shape).double()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_large_inputs_give_no_nan() -> None:
    torch.manual_seed(0)
    gru = nn.GRU(4, 4, 2, batch_first=True)
    for parts in both(gru, 1e4 * torch.randn(3, 20, 4), torch.randn(3, 20, 4)):
        assert all(part.isfinite().all() for part in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_pays_for_gradients_alone(dtype: torch.dtype) -> None:
    inputs = torch.zeros(2, 3, 4, dtype=dtype)
    assert pays(inputs) == (dtype == torch.float32)
    with torch.no_grad():
        assert not pays(inputs)
