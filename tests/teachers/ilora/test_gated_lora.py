import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_llm import HIDDEN_SIZE, VOCABULARY_SIZE
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2Model,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
)

from recdistill.errors import InputError
from recdistill.teachers.ilora.gate import build_gate
from recdistill.teachers.ilora.gated_lora import (
    GatedLoRA,
    GateSlot,
    attach_gated_lora,
    check_layers,
    load_adapter,
    save_adapter,
)
from recdistill.teachers.ilora.token_layers import LLAMA_PROJECTIONS

PARITY = Path(__file__).parents[2] / "parity" / "ilora_layer.safetensors"
EXPERTS, RANK, BATCH, LENGTH, LAYERS = 4, 8, 3, 6, 2
Llama = Callable[..., LlamaForCausalLM | LlamaModel]


def attach(base: PreTrainedModel, dropout: float = 0.0, gate_per_layer: bool = False) -> GatedLoRA:
    """Gated LoRA with a random B, so that it changes what the base computes."""
    gated = attach_gated_lora(
        base, rank=RANK, alpha=16, dropout=dropout, experts=EXPERTS, gate_per_layer=gate_per_layer
    )
    fill(gated.model)
    return gated


def fill(model: nn.Module) -> None:
    """The same random LoRA in any model of the same layers."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)


def random_gate(*shape: int) -> Tensor:
    return (2 * torch.randn(*shape, EXPERTS)).softmax(-1)


def gates_for(gated: GatedLoRA, *shape: int) -> Tensor:
    """Random weights of the shape that its layers read."""
    return (2 * torch.randn(*shape, *gated.slot.weights_shape)).softmax(-1)


def padded(ids: Tensor, lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    """Rows of ``ids`` cut to their lengths and padded with zeros on one side, and the attention mask."""
    width = max(lengths)
    rows, mask = (
        torch.zeros(len(lengths), width, dtype=torch.long),
        torch.zeros(len(lengths), width, dtype=torch.long),
    )
    for row, length in enumerate(lengths):
        place = slice(width - length, width) if side == "left" else slice(0, length)
        rows[row, place], mask[row, place] = ids[row, :length], 1
    return rows, mask


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 256, (BATCH, LENGTH))


@pytest.fixture
def embeds() -> Tensor:
    return torch.randn(BATCH, LENGTH, HIDDEN_SIZE)


class OneLayer(nn.Module):
    """A model of one linear layer; all that attaching needs of a base."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.layer.weight.data = weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)


def test_layer_equals_the_released_one() -> None:
    data = load_file(PARITY)
    base = OneLayer(data["in.weight"])
    gated = attach_gated_lora(base, rank=8, alpha=32, dropout=0.1, experts=4, target_modules=["layer"])  # type: ignore[arg-type]
    layer = gated.model.get_submodule(gated.gated_layers[0])
    layer.lora_A["default"].weight.data = data["in.lora_A"]
    layer.lora_B["default"].weight.data = data["in.lora_B"]
    # The file's scaling is 16 for α 32 and r/K 2, and K·α/r is 16 here.
    gated.slot.set(data["in.gate"])
    torch.testing.assert_close(gated.model.eval()(data["in.x"]), data["out.y"], atol=1e-5, rtol=1e-5)


def test_a_fresh_adapter_changes_nothing(tiny_llama: Llama, embeds: Tensor) -> None:
    expected = tiny_llama()(inputs_embeds=embeds).last_hidden_state
    gated = attach_gated_lora(tiny_llama(), rank=RANK, alpha=16, dropout=0.0, experts=EXPERTS)
    gated.slot.set(random_gate(BATCH))
    assert torch.equal(gated.model(inputs_embeds=embeds).last_hidden_state, expected)


def test_uniform_gate_is_plain_lora_exactly(tiny_llama: Llama, embeds: Tensor) -> None:
    plain = get_peft_model(tiny_llama(), LoraConfig(r=RANK, lora_alpha=16, target_modules=list(LLAMA_PROJECTIONS)))
    fill(plain)
    gated = attach(tiny_llama())
    gated.slot.set(torch.full((BATCH, EXPERTS), 1 / EXPERTS))
    expected = plain.eval()(inputs_embeds=embeds).last_hidden_state
    assert torch.equal(gated.model.eval()(inputs_embeds=embeds).last_hidden_state, expected)


def test_one_hot_gate_is_that_expert_alone_times_the_number_of_experts(tiny_llama: Llama, embeds: Tensor) -> None:
    gated = attach(tiny_llama())
    gated.slot.set(F.one_hot(torch.tensor([2, 0, 3]), EXPERTS).float())
    together = gated.model(inputs_embeds=embeds).last_hidden_state
    for row, expert in enumerate([2, 0, 3]):
        alone = attach(tiny_llama())
        rows = slice(expert * RANK // EXPERTS, (expert + 1) * RANK // EXPERTS)
        for name, parameter in alone.model.named_parameters():
            if "lora_A" in name:
                kept = torch.zeros_like(parameter)
                kept[rows] = EXPERTS * parameter.data[rows]
                parameter.data = kept
        alone.slot.set(torch.full((1, EXPERTS), 1 / EXPERTS))
        expected = alone.model(inputs_embeds=embeds[row : row + 1]).last_hidden_state
        torch.testing.assert_close(together[row : row + 1], expected, atol=1e-4, rtol=1e-4)


def test_every_sequence_has_its_own_gate(tiny_llama: Llama, embeds: Tensor) -> None:
    gated, weights, order = attach(tiny_llama()), random_gate(BATCH), torch.tensor([2, 0, 1])
    gated.slot.set(weights)
    outputs = gated.model(inputs_embeds=embeds).last_hidden_state
    gated.slot.set(weights[order])
    torch.testing.assert_close(gated.model(inputs_embeds=embeds[order]).last_hidden_state, outputs[order])
    changed = gated.model(inputs_embeds=embeds).last_hidden_state
    assert not torch.allclose(changed, outputs, atol=1e-2)


def test_token_gates_constant_over_tokens_are_sequence_gates(tiny_llama: Llama, embeds: Tensor) -> None:
    gated, weights = attach(tiny_llama()), random_gate(BATCH)
    gated.slot.set(weights)
    expected = gated.model(inputs_embeds=embeds).last_hidden_state
    gated.slot.set(weights.unsqueeze(1).expand(-1, LENGTH, -1))
    torch.testing.assert_close(gated.model(inputs_embeds=embeds).last_hidden_state, expected)


def test_a_token_gate_acts_from_its_token_on(tiny_llama: Llama, embeds: Tensor) -> None:
    gated, weights = attach(tiny_llama()), random_gate(BATCH, LENGTH)
    gated.slot.set(weights)
    before = gated.model(inputs_embeds=embeds).last_hidden_state
    weights[:, 3] = random_gate(BATCH)
    gated.slot.set(weights)
    after = gated.model(inputs_embeds=embeds).last_hidden_state
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_disabled_adapter_is_the_base_exactly(tiny_llama: Llama, ids: Tensor, dtype: torch.dtype) -> None:
    rows, mask = padded(ids, [3, 6, 4], "left")
    settings = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2, "pad_token_id": 0, "eos_token_id": None}
    base = tiny_llama(causal_lm=True, dtype=dtype)
    expected = base(input_ids=rows, attention_mask=mask).logits
    generated = base.generate(input_ids=rows, attention_mask=mask, **settings)
    gated = attach(tiny_llama(causal_lm=True, dtype=dtype), dropout=0.5)
    gated.model.train()
    with gated.model.disable_adapter():
        # Whether a gate is set or not.
        assert torch.equal(gated.model(input_ids=rows, attention_mask=mask).logits, expected)
        gated.slot.set(random_gate(BATCH))
        assert torch.equal(gated.model(input_ids=rows, attention_mask=mask).logits, expected)
        assert torch.equal(gated.model.generate(input_ids=rows, attention_mask=mask, **settings), generated)
    gated.model.eval()
    assert not torch.equal(gated.model(input_ids=rows, attention_mask=mask).logits, expected)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("per_layer", [False, True])
def test_checkpointed_gradients_are_the_plain_ones(
    tiny_llama: Llama, embeds: Tensor, per_token: bool, per_layer: bool
) -> None:
    state = torch.randn(BATCH, LENGTH, 16) if per_token else torch.randn(BATCH, 16)
    gate = build_gate("mlp", 16, EXPERTS, layers=LAYERS if per_layer else None)
    gradients = []
    for checkpointed in (False, True):
        gated = attach(tiny_llama(), dropout=0.2, gate_per_layer=per_layer)
        passes = [0]
        gated.model.get_submodule(gated.gated_layers[0]).register_forward_hook(
            lambda *_, passes=passes: passes.__setitem__(0, passes[0] + 1)
        )
        if checkpointed:
            gated.enable_gradient_checkpointing()
        gated.model.train()
        gate.zero_grad()
        torch.manual_seed(5)
        gated.slot.set(gate(state))
        gated.model(inputs_embeds=embeds).last_hidden_state.pow(2).sum().backward()
        assert passes[0] == 1 + checkpointed
        gradients.append([p.grad for p in (*gated.trainable_parameters(), *gate.parameters())])
    for plain, checkpointed_gradient in zip(*gradients, strict=True):
        assert plain is not None
        assert plain.abs().sum() > 0
        assert torch.equal(plain, checkpointed_gradient)


@pytest.mark.parametrize("per_layer", [False, True])
def test_each_checkpointed_pass_is_computed_again_with_its_own_gates(
    tiny_llama: Llama, embeds: Tensor, per_layer: bool
) -> None:
    gate = build_gate("mlp", 16, EXPERTS, layers=LAYERS if per_layer else None)
    states = 3 * torch.randn(2, BATCH, 16)
    gradients, entered = [], []
    for checkpointed in (False, True):
        gated = attach(tiny_llama(), gate_per_layer=per_layer)
        if checkpointed:
            gated.enable_gradient_checkpointing(lambda: entered.append(1) or contextlib.nullcontext())
        gated.model.train()
        gate.zero_grad()
        loss = torch.zeros(())
        for number, state in enumerate(states):
            gated.slot.set(gate(state))
            # Of the same shape, so that weights of another pass would be taken without a word.
            loss = loss + gated.model(inputs_embeds=embeds * (1 + number)).last_hidden_state.pow(2).sum()
        loss.backward()
        gradients.append([p.grad for p in (*gated.trainable_parameters(), *gate.parameters())])
        # The slot has the weights that were set last.
        with torch.no_grad():
            last = gated.model.eval()(inputs_embeds=embeds).last_hidden_state
            gated.slot.set(gate(states[1]))
            assert torch.equal(gated.model(inputs_embeds=embeds).last_hidden_state, last)
    assert len(entered) == 2 * LAYERS
    for plain, again in zip(*gradients, strict=True):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-6)


def test_a_base_without_checkpoints_says_so(tiny_llama: Llama) -> None:
    base = tiny_llama()
    base.supports_gradient_checkpointing = False
    gated = attach(base)
    with pytest.raises(InputError, match="gradient_checkpointing=true: the LLM does not allow it"):
        gated.enable_gradient_checkpointing()


@pytest.mark.parametrize("per_layer", [False, True])
def test_layers_that_see_sequences_pass_the_check(tiny_llama: Llama, embeds: Tensor, per_layer: bool) -> None:
    gated = attach(tiny_llama(), gate_per_layer=per_layer)
    generator = torch.get_rng_state()
    check_layers(gated)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not gated.model.training
    with pytest.raises(RuntimeError, match="no gate weights are set"):
        gated.model(inputs_embeds=embeds)


def test_layers_whose_tokens_no_gate_can_follow_are_refused(tiny_llama: Llama) -> None:
    base = tiny_llama()
    base.aside = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
    unread = attach_gated_lora(base, rank=4, alpha=8, dropout=0.0, experts=2, target_modules=["q_proj", "aside"])
    with pytest.raises(InputError, match=r"1 of its adapted layers read no token of a text, as base_model.model.aside"):
        check_layers(unread)


def test_only_lora_is_trainable_and_every_target_is_gated(tiny_llama: Llama) -> None:
    for causal_lm in (False, True):
        gated = attach(tiny_llama(causal_lm))
        trainable = {name for name, parameter in gated.model.named_parameters() if parameter.requires_grad}
        assert all("lora_" in name for name in trainable)
        assert len(gated.trainable_parameters()) == len(trainable) == 2 * len(gated.gated_layers)
        assert len(gated.gated_layers) == 2 * len(LLAMA_PROJECTIONS)
        for layer in gated.gated_layers:
            hooks = gated.model.get_submodule(f"{layer}.lora_A.{gated.adapter}")._forward_hooks
            assert len(hooks) == 1


def test_targets_can_be_chosen(tiny_llama: Llama, embeds: Tensor) -> None:
    base = tiny_llama()
    gated = attach_gated_lora(base, rank=4, alpha=8, dropout=0.0, experts=2, target_modules=["q_proj", "v_proj"])
    assert {name.rpartition(".")[2] for name in gated.gated_layers} == {"q_proj", "v_proj"}
    gated.slot.set(torch.full((BATCH, 2), 0.5))
    assert gated.model(inputs_embeds=embeds).last_hidden_state.shape == embeds.shape


def test_another_architecture_has_all_its_linear_layers_gated() -> None:
    gated = attach(GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=32)))
    ends = {name.rpartition(".")[2] for name in gated.gated_layers}
    assert ends == {"c_attn", "c_proj", "c_fc"}
    assert gated.transformer_layers == ("base_model.model.h.0", "base_model.model.h.1")
    gated.slot.set(random_gate(2))
    assert gated.model(torch.randint(0, 50, (2, 5))).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_padding_does_not_reach_a_sequence(tiny_llama: Llama, ids: Tensor, side: str, per_layer: bool) -> None:
    gated, lengths = attach(tiny_llama(), gate_per_layer=per_layer), [3, 6, 4]
    weights = gates_for(gated, BATCH)
    rows, mask = padded(ids, lengths, side)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    gated.slot.set(weights)
    batch = gated.model(input_ids=rows, attention_mask=mask, position_ids=positions).last_hidden_state
    for row, length in enumerate(lengths):
        gated.slot.set(weights[row : row + 1])
        alone = gated.model(input_ids=ids[row : row + 1, :length]).last_hidden_state[0]
        torch.testing.assert_close(batch[row][mask[row].bool()], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
@pytest.mark.parametrize("per_layer", [False, True])
@torch.no_grad()
def test_each_prompt_generates_as_if_alone(tiny_llama: Llama, ids: Tensor, options: dict, per_layer: bool) -> None:
    gated, lengths = attach(tiny_llama(causal_lm=True), gate_per_layer=per_layer), [3, 6, 4]
    weights = gates_for(gated, BATCH)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None} | options
    rows, mask = padded(ids, lengths, "left")
    gated.slot.set(weights)
    batch = gated.model.generate(input_ids=rows, attention_mask=mask, **settings)[:, max(lengths) :]
    each = []
    for row, length in enumerate(lengths):
        gated.slot.set(weights[row : row + 1])
        prompt = ids[row : row + 1, :length]
        # Without a cache every step is a whole forward pass.
        plain = gated.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), use_cache=False, **settings
        )
        each.append(plain[:, length:])
    assert torch.equal(batch, torch.cat(each))
    gated.slot.set(weights.roll(1, dims=0))
    assert not torch.equal(
        batch, gated.model.generate(input_ids=rows, attention_mask=mask, **settings)[:, max(lengths) :]
    )


@pytest.mark.parametrize("adapter", ["default", "teacher"])
@torch.no_grad()
def test_saved_and_loaded_is_the_same(
    tiny_llama: Llama, ids: Tensor, tmp_path: Path, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("saving and loading must not use the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    base = tiny_llama(causal_lm=True)
    # A name as of a model that came from the hub: peft would look it up there.
    base.name_or_path = base.config._name_or_path = "somebody/some-model"
    gated = attach_gated_lora(base, rank=RANK, alpha=16, dropout=0.1, experts=EXPERTS, adapter=adapter)
    fill(gated.model)
    gated.model.eval()
    save_adapter(tmp_path, gated)
    folder = tmp_path if adapter == "default" else tmp_path / adapter
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    loaded = load_adapter(tiny_llama(causal_lm=True), tmp_path)
    loaded.model.eval()
    assert loaded.gated_layers == gated.gated_layers
    assert len(loaded.trainable_parameters()) == len(gated.trainable_parameters())
    weights = random_gate(BATCH)
    results = []
    for one in (gated, loaded):
        one.slot.set(weights)
        generated = one.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, pad_token_id=0
        )
        results.append((one.model(input_ids=ids).logits, generated))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@torch.no_grad()
def test_peft_itself_opens_the_saved_adapter_as_the_average_expert(
    tiny_llama: Llama, embeds: Tensor, tmp_path: Path
) -> None:
    gated = attach(tiny_llama())
    save_adapter(tmp_path, gated)
    plain = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
    gated.slot.set(torch.full((BATCH, EXPERTS), 1 / EXPERTS))
    expected = gated.model.eval()(inputs_embeds=embeds).last_hidden_state
    assert torch.equal(plain(inputs_embeds=embeds).last_hidden_state, expected)


def test_bfloat16_base_trains_float32_lora(tiny_llama: Llama, embeds: Tensor) -> None:
    gated = attach(tiny_llama(dtype=torch.bfloat16), dropout=0.1)
    gate = build_gate("linear", 16, EXPERTS)
    gated.enable_gradient_checkpointing()
    gated.model.train()
    assert {parameter.dtype for parameter in gated.trainable_parameters()} == {torch.float32}
    gated.slot.set(gate(torch.randn(BATCH, 16)))
    outputs = gated.model(inputs_embeds=embeds.bfloat16()).last_hidden_state
    assert outputs.dtype == torch.bfloat16
    outputs.float().pow(2).mean().backward()
    for parameter in (*gated.trainable_parameters(), *gate.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@torch.no_grad()
def test_bfloat16_reads_on_from_its_cache_as_in_one_pass(tiny_llama: Llama, ids: Tensor) -> None:
    gated, weights, lengths = attach(tiny_llama(causal_lm=True, dtype=torch.bfloat16)), random_gate(BATCH), [3, 6, 4]
    gated.model.eval()
    rows, mask = padded(ids, lengths, "left")
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    gated.slot.set(weights)
    whole = gated.model(input_ids=rows, attention_mask=mask, position_ids=positions).logits[:, -1].float()
    begun = gated.model(
        input_ids=rows[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], use_cache=True
    )
    last = gated.model(
        input_ids=rows[:, -1:],
        attention_mask=mask,
        position_ids=positions[:, -1:],
        past_key_values=begun.past_key_values,
    )
    assert (last.logits[:, -1].float() - whole).abs().mean() < 0.02 * whole.std()
    gated.slot.set(weights.roll(1, dims=0))
    other = gated.model(input_ids=rows, attention_mask=mask, position_ids=positions).logits[:, -1].float()
    assert (other - whole).abs().mean() > 0.1 * whole.std()


@pytest.mark.parametrize("tokens", [(), (LENGTH,)])
def test_layers_with_the_same_gate_are_the_shared_gate(
    tiny_llama: Llama, embeds: Tensor, tokens: tuple[int, ...]
) -> None:
    shared, own = attach(tiny_llama()), attach(tiny_llama(), gate_per_layer=True)
    weights = random_gate(BATCH, *tokens)
    shared.slot.set(weights)
    own.slot.set(weights.unsqueeze(-2).expand(*weights.shape[:-1], LAYERS, EXPERTS))
    expected = shared.model(inputs_embeds=embeds).last_hidden_state
    assert torch.equal(own.model(inputs_embeds=embeds).last_hidden_state, expected)


@torch.no_grad()
def test_each_transformer_layer_reads_its_own_gate(tiny_llama: Llama, embeds: Tensor) -> None:
    gated = attach(tiny_llama(), gate_per_layer=True)
    assert gated.transformer_layers == ("base_model.model.layers.0", "base_model.model.layers.1")
    weights = gates_for(gated, BATCH)

    def states(changed: int | None) -> tuple[Tensor, ...]:
        given = weights.clone()
        if changed is not None:
            given[:, changed] = given[:, changed].roll(1, dims=-1)
        gated.slot.set(given)
        return gated.model(inputs_embeds=embeds, output_hidden_states=True).hidden_states

    _, first, last = states(None)
    _, first_kept, last_changed = states(1)
    assert torch.equal(first_kept, first)
    assert not torch.allclose(last_changed, last, atol=1e-2)
    assert not torch.allclose(states(0)[1], first, atol=1e-2)


@torch.no_grad()
def test_an_adapter_gated_by_layer_is_loaded_as_one(tiny_llama: Llama, embeds: Tensor, tmp_path: Path) -> None:
    gated = attach(tiny_llama(), gate_per_layer=True)
    save_adapter(tmp_path, gated)
    loaded = load_adapter(tiny_llama(), tmp_path)
    assert loaded.slot.weights_shape == (LAYERS, EXPERTS)
    weights = gates_for(gated, BATCH)
    outputs = []
    for one in (gated, loaded):
        one.slot.set(weights)
        outputs.append(one.model.eval()(inputs_embeds=embeds).last_hidden_state)
    assert torch.equal(*outputs)
    with pytest.raises(ValueError, match=r"must be \[B, 2, 4\] or \[B, T, 2, 4\]"):
        loaded.slot.set(random_gate(BATCH))


def test_unset_or_wrong_weights_raise(tiny_llama: Llama, embeds: Tensor) -> None:
    gated = attach(tiny_llama())
    with pytest.raises(RuntimeError, match="no gate weights are set"):
        gated.model(inputs_embeds=embeds)
    for weights, grad, message in (
        (random_gate(2), False, "the batch is 3 but gate weights are set for 2"),
        (random_gate(BATCH + 1), False, "the batch is 3 but gate weights are set for 4"),
        # Looks like beams, but beams are never trained.
        (random_gate(1), True, "the batch is 3 but gate weights are set for 1"),
        (random_gate(BATCH, 2), False, "6 tokens but gate weights are set for 2"),
        (random_gate(BATCH, 1), False, "6 tokens but gate weights are set for 1"),
    ):
        gated.slot.set(weights)
        with pytest.raises(RuntimeError, match=message), torch.set_grad_enabled(grad):
            gated.model(inputs_embeds=embeds)
    gated.slot.set(random_gate(BATCH))
    gated.slot.clear()
    with pytest.raises(RuntimeError, match="no gate weights are set"):
        gated.model(inputs_embeds=embeds)
    for wrong in (torch.ones(4), torch.ones(2, 3), torch.ones(1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"must be \[B, 4\] or \[B, T, 4\]"):
            gated.slot.set(wrong)
    slot = GateSlot(2, 4)
    slot.set(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="must be"):
        slot.mix(torch.ones(3, 4))


def test_generating_with_token_gates_raises(tiny_llama: Llama, ids: Tensor) -> None:
    gated = attach(tiny_llama(causal_lm=True))
    gated.slot.set(random_gate(BATCH, LENGTH))
    with pytest.raises(RuntimeError, match=r"generation needs weights \[B, K\]"):
        gated.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, pad_token_id=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 8, "experts": 3}, "rank 8 is no multiple of 3 experts"),
        ({"rank": 0}, "rank 0 is no multiple"),
        ({"experts": 0}, "no multiple of 0 experts"),
        ({"alpha": 0}, "alpha 0 must be above 0"),
        ({"dropout": 1.0}, "dropout 1.0 in"),
        ({"target_modules": ["q_proj", "query"]}, "no layer of the base model is named query"),
        ({"target_modules": []}, "nothing given"),
        ({"target_modules": ["embed_tokens"]}, "is no linear layer"),
        ({"target_modules": ["input_layernorm"]}, "peft refuses the targets"),
    ],
)
def test_bad_settings_are_refused(tiny_llama: Llama, changes: dict, message: str) -> None:
    settings = {"rank": RANK, "alpha": 16, "dropout": 0.0, "experts": EXPERTS} | changes
    with pytest.raises(InputError, match=message) as caught:
        attach_gated_lora(tiny_llama(), **settings)
    assert "\n" not in str(caught.value)


def test_merging_and_a_second_adapter_are_refused(tiny_llama: Llama) -> None:
    gated = attach(tiny_llama())
    for merge in (
        gated.model.merge_adapter,
        gated.model.merge_and_unload,
        gated.model.base_model.merge_and_unload,
    ):
        with pytest.raises(InputError, match="cannot be merged"):
            merge()
    with pytest.raises(InputError, match="cannot be merged"):
        gated.model.get_submodule(gated.gated_layers[0]).merge()
    with pytest.raises(InputError, match="already has an adapter"):
        attach(gated.model.get_base_model())


def test_an_adapter_that_does_not_fit_is_refused(tiny_llama: Llama, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gated_lora\.json: cannot be read"):
        load_adapter(tiny_llama(), tmp_path / "nowhere")
    save_adapter(tmp_path, attach(tiny_llama()))
    with pytest.raises(InputError, match="does not fit this base model"):
        load_adapter(tiny_llama(causal_lm=True), tmp_path)
    config = (tmp_path / "adapter_config.json").read_text()
    for option in ("dora", "rslora"):
        (tmp_path / "adapter_config.json").write_text(config.replace(f'"use_{option}": false', f'"use_{option}": true'))
        with pytest.raises(InputError, match=f"use_{option} does not work with experts"):
            load_adapter(tiny_llama(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(config.replace('"r": 8', '"r": 4'))
    with pytest.raises(InputError, match="is not LoRA of rank 8"):
        load_adapter(tiny_llama(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(config)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="the adapter cannot be read"):
        load_adapter(tiny_llama(), tmp_path)
    assert tiny_llama().config.vocab_size == VOCABULARY_SIZE
