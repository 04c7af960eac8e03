import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distillation.projection import factored, projection_layer


def test_is_torchs_initialisation_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    layer = projection_layer(64, 500)
    assert torch.equal(torch.get_rng_state(), before)
    assert (layer.weight.shape, layer.bias.shape) == ((500, 64), (500,))
    bound = 1 / math.sqrt(64)
    for parameter in (layer.weight, layer.bias):
        assert parameter.requires_grad
        assert 0.98 * bound < parameter.abs().max().item() <= bound
    assert abs(layer.weight.std().item() - bound / math.sqrt(3)) < 0.01 * bound
    assert torch.equal(projection_layer(64, 500).weight, layer.weight)
    torch.rand(1)
    assert not torch.equal(projection_layer(64, 500).weight, layer.weight)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9), st.sampled_from([torch.float32, torch.bfloat16]))
def test_factors_are_the_directions_that_leave_out_least(
    seed: int, of_table: int, rank: int, dtype: torch.dtype
) -> None:
    drawn = torch.Generator().manual_seed(seed)
    table = (torch.randn(40, of_table, generator=drawn) @ torch.randn(of_table, 12, generator=drawn)).to(dtype)
    before = torch.get_rng_state()
    found = factored(table, rank)
    assert torch.equal(torch.get_rng_state(), before)
    assert (found.codes.shape, found.basis.shape, found.shape) == ((40, rank), (rank, 12), (40, 12))
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(rank), atol=1e-5, rtol=0)
    exact = table.double()
    left_out = float((exact - found.codes.double() @ found.basis.double()).norm() / exact.norm())
    assert found.error == pytest.approx(left_out, abs=2e-3)
    values = torch.linalg.svdvals(exact)
    assert left_out == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-3)
    assert torch.equal(factored(table, rank).codes, found.codes)


def test_a_table_of_zeros_has_factors() -> None:
    found = factored(torch.zeros(9, 7), 3)
    assert found.error == 0
    assert torch.equal(found.codes @ found.basis, torch.zeros(9, 7))
