"""Gradients of attention over short texts are no further from the exact ones than torch's are."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from recdistill.teachers.ilora.documents import BY_TORCH
from recdistill.teachers.ilora.short_attention import MOST_TOKENS, ShortAttention, short_attention

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 50}


class Layer(nn.Module):
    """What transformers gives an attention function: heads that share keys."""

    is_causal = True

    def __init__(self, shared: int) -> None:
        super().__init__()
        self.num_key_value_groups = shared


def attended(parts: tuple[Tensor, ...], shared: int, scaling: float | None, **named: object) -> Tensor:
    """Attention by whatever is in force, [B, T, H, D]."""
    found: Tensor = ALL_ATTENTION_FUNCTIONS[BY_TORCH](Layer(shared), *parts, None, scaling=scaling, **named)[0]
    return found


def gradients(parts: tuple[Tensor, ...], shared: int, scaling: float | None, outward: Tensor) -> tuple[Tensor, ...]:
    """Of queries, keys and values."""
    leaves = tuple(part.detach().requires_grad_() for part in parts)
    return torch.autograd.grad(attended(leaves, shared, scaling), leaves, outward)


@settings(max_examples=30, deadline=None)
@example(texts=1, length=2, groups=1, shared=1, scaling=0.125, seed=620)
@given(
    texts=st.integers(1, 3), length=st.integers(2, 40), groups=st.integers(1, 3), shared=st.integers(1, 3),
    scaling=st.sampled_from([None, 0.125, 0.3]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_gradients_are_as_near_to_exact_ones_as_those_of_torch(
    texts: int, length: int, groups: int, shared: int, scaling: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def drawn(heads: int) -> Tensor:
        return torch.randn(texts, heads, length, 16, generator=generator).bfloat16()

    parts = (drawn(groups * shared), drawn(groups), drawn(groups))
    outward = drawn(groups * shared).transpose(1, 2)
    exact = gradients(tuple(part.double() for part in parts), shared, scaling, outward.double())
    by_torch = gradients(parts, shared, scaling, outward)
    with short_attention():
        assert torch.equal(attended(parts, shared, scaling), attended_by_torch(parts, shared, scaling))
        found = gradients(parts, shared, scaling, outward)
    # A gradient that is a difference of near equal numbers is rounded as these are.
    rounding = 1e-3 * max(truth.norm() for truth in exact)
    for ours, theirs, truth in zip(found, by_torch, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - truth).norm() < 2 * (theirs - truth).norm() + 4e-3 * truth.norm() + rounding


def attended_by_torch(parts: tuple[Tensor, ...], shared: int, scaling: float | None) -> Tensor:
    """The same by torch alone."""
    query, key, value = parts
    key, value = (one.repeat_interleave(shared, dim=1) for one in (key, value))
    found = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    return found.transpose(1, 2)


@pytest.mark.parametrize("case", ["float32", "long", "masked", "dropped", "not causal", "without gradient"])
def test_what_does_not_suit_is_left_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError(case)

    length = MOST_TOKENS + 1 if case == "long" else 5
    dtype = torch.float32 if case == "float32" else torch.bfloat16
    query = torch.randn(1, 2, length, 8, dtype=dtype, requires_grad=case != "without gradient")
    mask = torch.ones(1, 1, length, length, dtype=torch.bool) if case == "masked" else None
    named = {"dropout": 0.5} if case == "dropped" else {"is_causal": False} if case == "not causal" else {}
    monkeypatch.setattr(ShortAttention, "apply", refuse)
    with short_attention():
        found = ALL_ATTENTION_FUNCTIONS[BY_TORCH](Layer(1), query, query, query, mask, **named)[0]
    assert found.shape == (1, length, 2, 8)


def test_a_whole_llm_learns_by_it_and_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaModel(LlamaConfig(**SIZES, **heads, attn_implementation=BY_TORCH)).bfloat16().requires_grad_(False)
    texts = torch.randn(2, 20, 32).bfloat16()
    calls: list[int] = []
    apply = ShortAttention.apply
    monkeypatch.setattr(ShortAttention, "apply", lambda *given: calls.append(1) or apply(*given))

    def gradient() -> Tensor:
        given = texts.clone().requires_grad_()
        model(inputs_embeds=given, use_cache=False)[0].float().square().mean().backward()
        assert given.grad is not None
        return given.grad

    before = ALL_ATTENTION_FUNCTIONS[BY_TORCH]
    alone = gradient()
    with short_attention():
        found = gradient()
    assert len(calls) == 2
    assert ALL_ATTENTION_FUNCTIONS[BY_TORCH] is before
    assert torch.equal(alone, gradient())
    torch.testing.assert_close(found, alone, rtol=0.1, atol=0.02 * float(alone.abs().max()))
