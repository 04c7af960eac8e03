import gc
import statistics
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from peft.helpers import disable_input_dtype_casting
from tiny_llm import HIDDEN_SIZE
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LlamaModel, Qwen2Config, Qwen2Model

from recdistill.teachers.ilora.fused_lora import FusedLayer, GatedUpdate, is_power_of_two
from recdistill.teachers.ilora.gated_lora import GatedLoRA, GateError, attach_gated_lora

EXPERTS, RANK, BATCH, LENGTH = 4, 8, 3, 6
Llama = Callable[..., LlamaForCausalLM | LlamaModel]
Found = tuple[Tensor, dict[str, Tensor]]


def attached(base: nn.Module, alpha: float = 32.0, dropout: float = 0.0, gate_per_layer: bool = False) -> GatedLoRA:
    """Gated LoRA with random A and B."""
    gated = attach_gated_lora(
        base,  # type: ignore[arg-type]
        rank=RANK,
        alpha=alpha,
        dropout=dropout,
        experts=EXPERTS,
        gate_per_layer=gate_per_layer,
    )
    generator = torch.Generator().manual_seed(3)
    for name, parameter in gated.model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return gated


def low_precision(gated: GatedLoRA, dtype: torch.dtype) -> AbstractContextManager[object]:
    """As teachers read: LoRA in float32, products in the base's precision."""
    return torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext()


def passed(gated: GatedLoRA, embeds: Tensor, logits: Tensor, dtype: torch.dtype) -> Found:
    """States, and the gradients of inputs, mixing weights and LoRA by name."""
    embeds, logits = embeds.clone().requires_grad_(), logits.clone().requires_grad_()
    gated.model.zero_grad()
    gated.slot.set(logits.softmax(-1))
    with low_precision(gated, dtype), disable_input_dtype_casting(gated.model, dtype == torch.bfloat16):
        states = gated.model(inputs_embeds=embeds)[0]
    # Of a norm's output the sum of squares would be a constant, and its gradient rounding.
    weight = torch.randn(states.shape[1:], generator=torch.Generator().manual_seed(5))
    (weight * states.float()).sum().backward()
    found = {name: one.grad for name, one in gated.model.named_parameters() if one.grad is not None}
    assert embeds.grad is not None
    assert logits.grad is not None
    return states.detach(), found | {"inputs": embeds.grad, "mixing": logits.grad}


def by_peft_and_fused(
    gated: GatedLoRA, embeds: Tensor, logits: Tensor, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> tuple[Found, Found]:
    """The same pass by peft, and as it is by default."""
    with monkeypatch.context() as patch:
        patch.setattr(FusedLayer, "fits", lambda *_: False)
        by_peft = passed(gated, embeds, logits, dtype)
    return by_peft, passed(gated, embeds, logits, dtype)


def distances(found: Found, exact: Found) -> list[float]:
    """The norm of the difference as a share of the norm, of the states and of each gradient."""
    (states, gradients), (exact_states, exact_gradients) = found, exact
    assert gradients.keys() == exact_gradients.keys()
    pairs = [(states, exact_states), *((value, exact_gradients[name]) for name, value in gradients.items())]
    return [float((one.double() - other.double()).norm() / other.double().norm()) for one, other in pairs]


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each layer that was computed in one step."""
    calls: list[int] = []
    forward = GatedUpdate.forward

    def counted(*given: Tensor) -> Tensor:
        calls.append(1)
        return forward(*given)

    monkeypatch.setattr(GatedUpdate, "forward", staticmethod(counted))
    return calls


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("per_token", [False, True])
def test_states_and_gradients_are_those_of_peft(
    tiny_llama: Llama,
    per_token: bool,
    per_layer: bool,
    monkeypatch: pytest.MonkeyPatch,
    fused_calls: list[int],
) -> None:
    gated = attached(tiny_llama(), gate_per_layer=per_layer)
    embeds = torch.randn(BATCH, LENGTH, HIDDEN_SIZE)
    leading = (BATCH, LENGTH) if per_token else (BATCH,)
    logits = torch.randn(*leading, *gated.slot.weights_shape)
    by_peft, fused = by_peft_and_fused(gated, embeds, logits, torch.float32, monkeypatch)
    assert len(fused_calls) == len(gated.gated_layers)
    assert max(distances(fused, by_peft)) < 1e-5
    with torch.inference_mode():
        assert torch.equal(gated.model(inputs_embeds=embeds)[0], fused[0])


def test_in_low_precision_no_further_from_the_exact_numbers_than_peft(
    tiny_llama: Llama, monkeypatch: pytest.MonkeyPatch, fused_calls: list[int]
) -> None:
    gated, exactly = attached(tiny_llama().bfloat16()), attached(tiny_llama().bfloat16().float())
    embeds, logits = torch.randn(BATCH, LENGTH, HIDDEN_SIZE).bfloat16(), torch.randn(BATCH, LENGTH, EXPERTS)
    by_peft, fused = by_peft_and_fused(gated, embeds, logits, torch.bfloat16, monkeypatch)
    assert len(fused_calls) == len(gated.gated_layers)
    exact = passed(exactly, embeds.float(), logits, torch.float32)
    mean_distance, of_peft = (statistics.mean(distances(found, exact)) for found in (fused, by_peft))
    assert 0 < mean_distance < 1.3 * of_peft
    with torch.inference_mode(), low_precision(gated, torch.bfloat16):
        assert torch.equal(gated.model(inputs_embeds=embeds)[0], fused[0])


def test_gradients_are_those_of_the_formula() -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    x, mixing, a, b = draw(2, 3, 5), draw(2, 3, 4), draw(4, 5), draw(6, 4)
    weight, bias = draw(6, 5).detach(), draw(6).detach()

    def layer(x: Tensor, mixing: Tensor, a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = GatedUpdate.apply(x, mixing, mixing.detach(), a, b, a.detach(), b.detach(), weight, bias)
        return found

    torch.testing.assert_close(layer(x, mixing, a, b), x @ weight.T + bias + (mixing * (x @ a.T)) @ b.T)
    assert torch.autograd.gradcheck(layer, (x, mixing, a, b))
    one_for_all = draw(2, 1, 4)
    assert torch.autograd.gradcheck(layer, (x, one_for_all, a, b))


@pytest.mark.parametrize("with_bias", [False, True])
def test_what_a_layer_gives_can_be_written_to(with_bias: bool) -> None:
    x, mixing, a, b, weight = (torch.randn(shape) for shape in ((2, 3, 5), (2, 3, 4), (4, 5), (6, 4), (6, 5)))
    bias = torch.randn(6) if with_bias else None
    x.requires_grad_()

    def gradient(scaled: Callable[[Tensor], Tensor]) -> Tensor:
        found = GatedUpdate.apply(x, mixing, mixing, a, b, a, b, weight, bias)
        return torch.autograd.grad(scaled(found).sum(), x)[0]

    torch.testing.assert_close(gradient(lambda found: found.mul_(3)), gradient(lambda found: found * 3))


def test_layers_with_a_bias_too(monkeypatch: pytest.MonkeyPatch, fused_calls: list[int]) -> None:
    small = Qwen2Config(
        vocab_size=64,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    torch.manual_seed(0)
    gated = attached(Qwen2Model(small))
    for name, parameter in gated.model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    embeds, logits = torch.randn(BATCH, LENGTH, HIDDEN_SIZE), torch.randn(BATCH, LENGTH, EXPERTS)
    by_peft, fused = by_peft_and_fused(gated, embeds, logits, torch.float32, monkeypatch)
    assert len(fused_calls) == len(gated.gated_layers)
    assert max(distances(fused, by_peft)) < 1e-5


def test_gradients_of_several_passes_add_up(tiny_llama: Llama) -> None:
    gated = attached(tiny_llama())
    embeds, logits = torch.randn(BATCH, LENGTH, HIDDEN_SIZE), torch.randn(BATCH, LENGTH, EXPERTS)
    together = passed(gated, embeds, logits, torch.float32)[1]
    apart = [passed(gated, embeds[row : row + 1], logits[row : row + 1], torch.float32)[1] for row in range(BATCH)]
    for name, value in together.items():
        if "lora_" in name:
            torch.testing.assert_close(sum(one[name] for one in apart), value, rtol=1e-4, atol=1e-4)


def test_what_peft_computes_otherwise_is_left_to_peft(tiny_llama: Llama, fused_calls: list[int]) -> None:
    embeds, logits = torch.randn(BATCH, LENGTH, HIDDEN_SIZE), torch.randn(BATCH, EXPERTS)

    def run(gated: GatedLoRA) -> None:
        gated.slot.set(logits.softmax(-1))
        gated.model(inputs_embeds=embeds)

    run(attached(tiny_llama(), alpha=24.0))
    assert not fused_calls
    dropping = attached(tiny_llama(), dropout=0.1)
    dropping.model.eval()
    run(dropping)
    assert len(fused_calls) == len(dropping.gated_layers)
    fused_calls.clear()
    dropping.model.train()
    run(dropping)
    watched = attached(tiny_llama())
    for name in watched.gated_layers:
        layer = watched.model.get_submodule(name)
        layer.lora_A["default"].register_forward_hook(lambda *_: None)  # type: ignore[index,operator,union-attr]
    run(watched)
    for change in (
        lambda base: base.register_forward_pre_hook(lambda *_: None),
        lambda base: setattr(base, "forward", base.forward),
        lambda base: base.weight.requires_grad_(),
    ):
        other = attached(tiny_llama())
        for name in other.gated_layers:
            change(other.model.get_submodule(name).base_layer)
        run(other)
    disabled = attached(tiny_llama())
    with disabled.model.disable_adapter():
        run(disabled)
    assert not fused_calls
    run(disabled)
    assert len(fused_calls) == len(disabled.gated_layers)


def test_weights_in_the_precision_of_a_pass_do_not_outlive_it(tiny_llama: Llama) -> None:
    gated = attached(tiny_llama().bfloat16())
    embeds = torch.randn(BATCH, LENGTH, HIDDEN_SIZE).bfloat16()
    gated.slot.set(torch.full((BATCH, EXPERTS), 1 / EXPERTS))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = gated.model(inputs_embeds=embeds)[0]
        assert all(layer.low is None for layer in gated.slot.fused)
        for name, parameter in gated.model.named_parameters():
            if "lora_B" in name:
                parameter.data.mul_(2)
        assert not torch.equal(gated.model(inputs_embeds=embeds)[0], before)
        with pytest.raises(GateError):
            gated.model(inputs_embeds=embeds[:2])
    assert all(layer.low is None for layer in gated.slot.fused)


@pytest.mark.parametrize(("factor", "is_one"), [(4.0, True), (0.5, True), (1.0, True), (3.0, False), (0.0, False)])
def test_powers_of_two(factor: float, is_one: bool) -> None:
    assert is_power_of_two(factor) == is_one


def test_an_adapted_llm_leaves_no_circle_of_references(tiny_llama: Llama) -> None:
    gated = attached(tiny_llama())
    layer = weakref.ref(gated.model.get_submodule(gated.gated_layers[0]))
    gc.disable()
    try:
        del gated
        assert layer() is None
    finally:
        gc.enable()
