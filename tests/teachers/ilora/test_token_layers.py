"""Which layers of an LLM are adapted: those that read every token, also as one list; experts are left alone."""

from pathlib import Path

import pytest
import torch
from tiny_families import tiny_config
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from recdistill.errors import InputError
from recdistill.teachers.ilora.gated_lora import GateError, GateSlot, attach_gated_lora, load_adapter, save_adapter
from recdistill.teachers.ilora.token_layers import LLAMA_PROJECTIONS, default_targets, end_of, token_layers

OPTIONS = {"rank": 4, "alpha": 8, "dropout": 0.0, "experts": 2}


def tiny(family: str, auto: type = AutoModel) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return auto.from_config(tiny_config(family)).eval().requires_grad_(False)


def ends_of(family: str) -> set[str]:
    return {end_of(name) for name in token_layers(tiny(family))}


def test_a_llama_has_its_seven_projections_and_its_head_is_left_out() -> None:
    for auto in (AutoModel, AutoModelForCausalLM):
        base = tiny("llama", auto)
        assert default_targets(base) == list(LLAMA_PROJECTIONS)
        assert {end_of(name) for name in token_layers(base)} == set(LLAMA_PROJECTIONS)


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("opt", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("mixtral", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        # Peft refuses the layer whose weights the fused kernels read.
        ("mamba", {"in_proj", "x_proj"}),
    ],
)
def test_layers_that_read_tokens(family: str, ends: set[str]) -> None:
    assert ends_of(family) == ends


def test_a_vision_tower_and_routed_experts_are_left_out() -> None:
    assert all(name.startswith("language_model.") for name in token_layers(tiny("gemma3")))
    routed = token_layers(tiny("qwen2_moe"))
    assert routed
    assert not any(".experts." in name for name in routed)


def test_what_cannot_be_run_has_no_layers_told() -> None:
    with torch.device("meta"):
        base = AutoModel.from_config(tiny_config("llama"))
    base.forward = None
    assert token_layers(base) is None
    assert default_targets(base) == list(LLAMA_PROJECTIONS)


def test_an_llm_without_such_layers_is_refused() -> None:
    base = tiny("llama")
    base.layers = nn.ModuleList()
    with pytest.raises(InputError, match="none of its linear layers reads the tokens"):
        attach_gated_lora(base, **OPTIONS)


@torch.no_grad()
@pytest.mark.parametrize("family", ["opt", "qwen2_moe", "llama4_text", "llama"])
def test_tokens_as_one_list_are_mixed_by_their_own_gates(family: str) -> None:
    """A batch has for each sequence what it has alone, whatever shape a layer reads it in."""
    gated = attach_gated_lora(tiny(family), **OPTIONS)
    for name, parameter in gated.model.named_parameters():
        if "lora_" in name:
            parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    tokens = torch.randint(1, 200, (3, 5), generator=torch.Generator().manual_seed(1))
    weights = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(2)).softmax(dim=-1)
    for given in (weights, weights[:, 0]):
        gated.slot.set(given)
        together = gated.model(input_ids=tokens, use_cache=False)[0]
        for row in range(3):
            gated.slot.set(given[row : row + 1])
            alone = gated.model(input_ids=tokens[row : row + 1], use_cache=False)[0]
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    gated.slot.set(weights.flip(0))
    assert (gated.model(input_ids=tokens, use_cache=False)[0] - together).abs().max() > 1e-3


def test_lists_of_tokens_by_hand() -> None:
    slot = GateSlot(2, 4)
    slot.set(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    hidden = torch.ones(6, 4)
    with pytest.raises(GateError, match=r"must be \[B, T, H\]"):
        slot.mix(hidden)
    slot.begin_pass(nn.Identity(), (), {"input_ids": torch.zeros(2, 3)})
    assert slot.mix(hidden).tolist() == [[2, 2, 0, 0]] * 3 + [[0.5, 0.5, 1.5, 1.5]] * 3
    with pytest.raises(GateError, match=r"must be \[B, T, H\]"):
        slot.mix(hidden[:5])
    by_head = slot.mix(torch.ones(2, 3, 7, 4))
    assert torch.equal(by_head[:, :, 0].reshape(6, 4), slot.mix(hidden))


@torch.no_grad()
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "laguna"])
def test_a_mixture_of_experts_is_saved_and_loaded(family: str, tmp_path: Path) -> None:
    gated = attach_gated_lora(tiny(family), **OPTIONS)
    assert not gated.model.peft_config["default"].rank_pattern
    for name, parameter in gated.model.named_parameters():
        if "lora_" in name:
            parameter.normal_()
    save_adapter(tmp_path / "adapter", gated)
    loaded = load_adapter(tiny(family), tmp_path / "adapter")
    own = dict(gated.model.named_parameters())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, own[name]), name
