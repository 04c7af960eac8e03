"""Texts of one row attend to themselves alone, and LLMs that would mix them read padded rows."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from family_trials import write_family
from hypothesis import given
from tiny_families import FAMILIES
from torch import Tensor, nn
from transformers import AutoModel, Lfm2Config, Lfm2Model, MistralConfig, MistralModel

from recdistill.teachers.ilora.documents import (
    Documents,
    by_document,
    documents_apart,
    groups_of,
    longest_in_row,
)
from recdistill.teachers.ilora.short_attention import attention_of

CPU = torch.device("cpu")
falling = st.lists(st.integers(1, 30), min_size=1, max_size=12).map(lambda lengths: sorted(lengths, reverse=True))


def causal(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, __: None) -> tuple[Tensor, None]:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2), None


@given(falling, st.integers(0, 2**31))
def test_attention_and_its_gradients_are_those_of_each_text_alone(lengths: list[int], seed: int):
    torch.manual_seed(seed)
    sizes = ((4, 3), (2, 3), (2, 5))
    whole = [
        torch.randn(1, heads, sum(lengths), size, dtype=torch.float64, requires_grad=True) for heads, size in sizes
    ]
    found, _ = by_document(causal, Documents.of(lengths, CPU))(nn.Identity(), *whole, None)
    outward = torch.randn_like(found)
    gradients = torch.autograd.grad(found, whole, outward)
    texts = [one.split(lengths, dim=2) for one in whole]
    alone = torch.cat([causal(nn.Identity(), *text, None)[0] for text in zip(*texts, strict=True)], dim=1)
    torch.testing.assert_close(found, alone)
    for gradient, expected in zip(gradients, torch.autograd.grad(alone, whole, outward), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_short_attention_in_bfloat16_has_the_gradients_of_each_text_alone():
    torch.manual_seed(0)
    lengths = [40, 33, 17, 5, 1]
    attend = attention_of(lambda module, query, key, value, mask, *_, **__: causal(module, query, key, value, mask))
    sizes = ((4, 16), (2, 16), (2, 16))
    whole = [torch.randn(1, heads, sum(lengths), size).bfloat16().requires_grad_() for heads, size in sizes]
    outward = torch.randn(1, sum(lengths), 4, 16).bfloat16()
    found = by_document(attend, Documents.of(lengths, CPU))(nn.Identity(), *whole, None)[0]
    gradients = torch.autograd.grad(found, whole, outward)
    exact = [one.detach().double().requires_grad_() for one in whole]
    texts = zip(*(one.split(lengths, dim=2) for one in exact), strict=True)
    alone = torch.cat([causal(nn.Identity(), *text, None)[0] for text in texts], dim=1)
    for gradient, expected in zip(gradients, torch.autograd.grad(alone, exact, outward.double()), strict=True):
        torch.testing.assert_close(gradient.double(), expected, rtol=0.05, atol=0.05)


@given(falling)
def test_places_hold_each_token_once(lengths: list[int]):
    documents = Documents.of(lengths, CPU)
    assert documents.position[0].tolist() == [place for length in lengths for place in range(length)]
    assert documents.spread[documents.place].tolist() == list(range(sum(lengths)))
    places = sorted(documents.place.tolist() + documents.padding.tolist())
    assert places == list(range(sum(rows * width for rows, width in documents.groups)))


@given(falling, st.floats(0, 0.9))
def test_groups_take_all_texts_in_turn_and_pad_little(lengths: list[int], most: float):
    begin = 0
    for rows, width in groups_of(lengths, most):
        inside = lengths[begin : begin + rows]
        assert width == max(inside)
        assert sum(inside) >= (1 - most) * width * rows - 1e-9
        begin += rows
    assert begin == len(lengths)


@pytest.mark.parametrize("lengths", [[], [3, 0], [2, 5]])
def test_lengths_that_cannot_be_are_refused(lengths: list[int]):
    with pytest.raises(ValueError, match="must be at least 1 and not rise"):
        Documents.of(lengths, CPU)


def longest_of(model: nn.Module) -> float:
    """`longest_in_row` of a bare model."""
    held: list[Documents | None] = [None]

    def read(tokens: Tensor, documents: Documents | None) -> Tensor:
        held[0] = documents
        positions = {} if documents is None else {"position_ids": documents.position}
        with documents_apart(lambda: held[0]):
            return model(input_ids=tokens, use_cache=False, **positions)[0]

    return longest_in_row(read, model.config.get_text_config().num_hidden_layers, CPU)


#: Tokens that a text of one row may have; others read padded rows.
LONGEST = {
    "llama": float("inf"), "gpt2": float("inf"), "opt": float("inf"), "qwen3": float("inf"), "mixtral": float("inf"),
    "bloom": 0, "mamba": 0, "gpt_neo": 0, "falcon_h1": 0, "rwkv": 0,
}  # fmt: skip


@pytest.mark.parametrize("family", sorted(LONGEST.keys() & set(FAMILIES)))
def test_those_that_mix_tokens_otherwise_read_padded_rows(family: str, tmp_path: Path):
    model = AutoModel.from_pretrained(write_family(family, tmp_path), dtype=torch.float32).eval()
    assert longest_of(model) == LONGEST[family]


def test_a_window_bounds_the_texts_of_a_row():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = MistralModel(MistralConfig(vocab_size=64, num_hidden_layers=2, sliding_window=12, **sizes)).eval()
    assert longest_of(model) == 12


def test_some_layers_that_attend_are_not_enough():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    layers = ["conv", "full_attention"]
    model = Lfm2Model(Lfm2Config(vocab_size=64, num_hidden_layers=2, layer_types=layers, **sizes)).eval()
    assert longest_of(model) == 0


def test_what_attends_as_transformers_does_is_told_by_its_states():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = MistralModel(MistralConfig(vocab_size=64, num_hidden_layers=2, sliding_window=None, **sizes)).eval()
    assert longest_of(model) == float("inf")

    def shifted(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output + F.pad(output[:, :-1], (0, 0, 1, 0))

    handle = model.layers[0].mlp.register_forward_hook(shifted)
    assert longest_of(model) == 0
    handle.remove()
    assert longest_of(model) == float("inf")
