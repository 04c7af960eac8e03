"""Attention over short texts on a CPU in bfloat16, whose backward pass is a few plain products.

Torch's backward pass of attention on a CPU handles tiles of the scores one by one, and takes longer than all the
products of a small LLM where texts have some hundred tokens, as prompts have. Here the scores are made anew, as one
product a group of heads, and softmax and gradients likewise. The forward pass is torch's. In float32, without
gradients, with a mask, and for long texts, whose scores fill the cache, all is left to torch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recdistill.teachers.ilora.documents import attention_changed

#: Tokens of the longest texts that are attended to here.
MOST_TOKENS = 384


class ShortAttention(torch.autograd.Function):
    """Causal attention, softmax(scaling · Q Kᵀ) V, with a backward pass of plain products.

    Arguments: queries [B, H, T, D], keys [B, G, T, D] and values [B, G, T, E], where G divides H, the scaling, and what
    computes the attention [B, T, H, E].
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # type: ignore[override]
        """The attention [B, T, H, E]."""
        query, key, value, scaling, attend = given
        ctx.save_for_backward(query, key, value)
        ctx.scaling = scaling
        found: Tensor = attend()
        return found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of queries, keys and values; all heads that share keys are one product."""
        query, key, value = ctx.saved_tensors
        texts, groups, length, _ = key.shape
        together, shared = texts * groups, query.shape[1] // groups
        queries = query.reshape(together, shared * length, -1)
        keys, values = key.reshape(together, length, -1), value.reshape(together, length, -1)
        outward = gradient.transpose(1, 2).reshape(together, shared * length, -1)
        later = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1).repeat(shared, 1)
        scores = torch.baddbmm(later, queries, keys.transpose(1, 2), alpha=ctx.scaling)
        weights = torch.softmax(scores, dim=-1).to(query.dtype)
        of_weights = torch.bmm(outward, values.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_queries = torch.bmm(of_scores, keys).mul_(ctx.scaling)
        of_keys = torch.bmm(of_scores.transpose(1, 2), queries).mul_(ctx.scaling)
        of_values = torch.bmm(weights.transpose(1, 2), outward)
        return of_queries.view_as(query), of_keys.view_as(key), of_values.view_as(value), None, None


def attention_of(by_torch: Callable[..., tuple[Tensor, None]]) -> Callable[..., tuple[Tensor, None]]:
    """An attention function of transformers that leaves to ``by_torch`` what does not suit `ShortAttention`."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **named: Any,
    ) -> tuple[Tensor, None]:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal

        def attend() -> tuple[Tensor, None]:
            return by_torch(
                module, query, key, value, attention_mask, dropout, scaling=scaling, is_causal=is_causal, **named
            )

        plain = attention_mask is None and not dropout and named.get("position_bias") is None
        if not (plain and causal and suits(query, key, value)):
            return attend()
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        return ShortAttention.apply(query, key, value, factor, lambda: attend()[0]), None

    return attention


def suits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a gradient is wanted of short texts in bfloat16 on a CPU, each attending to itself alone."""
    return (
        torch.is_grad_enabled()
        and (query.requires_grad or key.requires_grad or value.requires_grad)
        and {(one.device.type, one.dtype) for one in (query, key, value)} == {("cpu", torch.bfloat16)}
        and 1 < query.shape[2] <= MOST_TOKENS
        and key.shape[:3] == value.shape[:3] == (query.shape[0], key.shape[1], query.shape[2])
        and query.shape[1] % key.shape[1] == 0
    )


def short_attention() -> AbstractContextManager[None]:
    """While it lasts, LLMs of transformers that attend by torch attend to short texts by `ShortAttention`."""
    return attention_changed(attention_of)
