"""Normalisation in fewer passes gives what the layers of transformers give, but for rounding."""

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from recdistill.teachers.ilora.rms_norm import QuickNorm, quicken_norms

LAYERS = [LlamaRMSNorm, Qwen3RMSNorm, Gemma3RMSNorm]


def layer_of(kind: type[nn.Module], dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """A frozen layer with drawn weights."""
    torch.manual_seed(0)
    layer = kind(24).to(dtype).requires_grad_(False)
    nn.init.normal_(layer.weight, mean=1.0, std=0.3)
    return layer


def gradient(layer: nn.Module, states: Tensor, outward: Tensor) -> Tensor:
    """Of the states."""
    given = states.detach().requires_grad_()
    return torch.autograd.grad(layer(given), given, outward.to(states.dtype))[0]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(2, 7, 24), (2, 7, 3, 24)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_states_and_gradients_are_those_of_the_layer(
    kind: type[nn.Module], shape: tuple[int, ...], size: float
) -> None:
    layer, plain, wide = layer_of(kind), layer_of(kind), layer_of(kind, torch.float64)
    wide.load_state_dict(plain.state_dict())
    assert quicken_norms(nn.ModuleList([layer])) == 1
    assert isinstance(layer, QuickNorm)
    assert isinstance(layer, kind)
    states, outward = (size * torch.randn(shape)).bfloat16(), torch.randn(shape).bfloat16()
    torch.testing.assert_close(layer(states), plain(states), rtol=2.0**-7, atol=0.0)
    exact = gradient(wide, states.double(), outward.double())
    errors = [(gradient(one, states, outward) - exact).norm() / exact.norm() for one in (layer, plain)]
    assert errors[0] < 1.5 * errors[1] + 1e-3


def test_other_precisions_and_trained_weights_are_left_to_the_layer() -> None:
    layer, plain = layer_of(LlamaRMSNorm), layer_of(LlamaRMSNorm)
    quicken_norms(nn.ModuleList([layer]))
    states = torch.randn(3, 24)
    assert torch.equal(layer.float()(states), plain.float()(states))
    layer.requires_grad_(True)
    found = torch.autograd.grad(layer(states).sum(), layer.weight)[0]
    assert found.abs().max() > 0


class OtherRMSNorm(LlamaRMSNorm):
    """Computes something else under a like name."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return 2 * super().forward(hidden_states)


class StatefulRMSNorm(LlamaRMSNorm):
    """Has a bias, too."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bias = nn.Parameter(torch.zeros(size))


@pytest.mark.parametrize("kind", [OtherRMSNorm, StatefulRMSNorm, nn.LayerNorm])
def test_layers_of_another_formula_stay_as_they_are(kind: type[nn.Module]) -> None:
    layer = layer_of(kind)
    assert quicken_norms(nn.ModuleList([layer])) == 0
    assert type(layer) is kind
    assert quicken_norms(nn.ModuleList([layer_of(LlamaRMSNorm, torch.float32)])) == 0
