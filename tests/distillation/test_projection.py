import math

import torch

from recdistill.distillation.projection import projection_layer


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
