import pytest
import torch
from tiny_llm import tiny_model
from torch import nn

from recdistill.teachers.ilora.injection import Projector, embedding_scale


def test_embedding_scale_is_the_root_mean_square():
    table = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0], [0.0, 0.0]])
    assert embedding_scale(table) == pytest.approx((50 / 8) ** 0.5)
    assert embedding_scale(table.bfloat16()) == pytest.approx((50 / 8) ** 0.5)


@pytest.mark.parametrize("backbone_size", [16, 64, 256])
def test_a_projected_embedding_is_as_large_as_a_token_of_the_llm(backbone_size):
    table = tiny_model().get_input_embeddings().weight.detach()
    projector = Projector(backbone_size, table.shape[1], embedding_scale(table))
    projected = projector(5 + 3 * torch.randn(500, backbone_size))
    assert projected.square().mean().sqrt().item() == pytest.approx(embedding_scale(table), rel=0.25)


def test_it_is_the_two_layer_projection_of_the_normed_embedding():
    projector, items = Projector(8, 12, 0.5), torch.randn(3, 4, 8)
    normed = (items - items.mean(-1, keepdim=True)) / (items.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = projector.scale * projector.outer(nn.GELU()(projector.inner(normed)))
    torch.testing.assert_close(projector(items), expected)


def test_scale_and_shift_of_the_backbone_do_not_matter():
    projector, items = Projector(16, 12, 1.0), torch.randn(5, 16)
    torch.testing.assert_close(projector(items), projector(7 * items + 3), atol=1e-4, rtol=1e-4)


def test_the_scale_is_kept_with_the_weights_and_not_trained():
    projector = Projector(8, 12, 0.5)
    assert set(projector.state_dict()) == {"scale", "inner.weight", "inner.bias", "outer.weight", "outer.bias"}
    projector(torch.randn(4, 8)).sum().backward()
    assert {name for name, parameter in projector.named_parameters() if parameter.grad is not None} == {
        "inner.weight",
        "inner.bias",
        "outer.weight",
        "outer.bias",
    }


def test_its_probe_draws_no_global_random_number():
    torch.manual_seed(3)
    nn.Linear(8, 12), nn.Linear(12, 12)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Projector(8, 12, 0.5)
    assert torch.equal(torch.rand(1), expected)
