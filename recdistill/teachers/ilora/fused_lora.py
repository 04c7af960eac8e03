"""A gated LoRA layer's update in one step of autograd: peft's numbers to the last bit, for less time and memory.

Peft computes ``W x + s · B(m ∘ (A x))``, with m the scaled mixing weights and s its scaling, as eight operations that
autograd records one by one. Two of them read and write a tensor as wide as the layer's output, and their gradients do so
again. On a CPU these cost more than the narrow products. Here s joins the addition, which is done in place.
"""

import math
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GatedUpdate(torch.autograd.Function):
    """``own + factor · (mixing ∘ (x Aᵀ)) Bᵀ``; ``own`` is overwritten.

    Products are in ``own``'s precision, and gradients of A, B and the mixing weights in that of these, as autocast has
    it. Arguments: ``own`` [B, T, O], x [B, T, I], mixing weights [B, 1 or T, r] and the same in ``own``'s precision, A
    [r, I], B [O, r] and the factor.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, own: Tensor, x: Tensor, mixing: Tensor, low: Tensor, a: Tensor, b: Tensor, factor: float
    ) -> Tensor:
        """The layer's output [B, T, O]."""
        a, b = a.to(own.dtype), b.to(own.dtype)
        narrow = nn.functional.linear(x, a)
        mixed = narrow * low
        ctx.save_for_backward(x, low, a, b, narrow, mixed)
        ctx.factor, ctx.dtype = factor, mixing.dtype
        ctx.mark_dirty(own)
        return add_update(own, mixed, b, factor)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients, each by the products that autograd takes."""
        x, low, a, b, narrow, mixed = ctx.saved_tensors
        scaled = gradient if exact(ctx.factor) else gradient * ctx.factor
        # A power of two may as well multiply the narrow results: no rounding differs.
        after = ctx.factor if exact(ctx.factor) else 1.0
        flat = scaled.reshape(-1, scaled.shape[-1])
        of_mixed = flat.mm(b).mul_(after).view_as(mixed)
        of_b = flat.t().mm(mixed.view(-1, mixed.shape[-1])).mul_(after)
        of_low = (of_mixed * narrow).sum_to_size(low.shape).to(ctx.dtype) if ctx.needs_input_grad[2] else None
        of_narrow = (of_mixed * low).view(-1, a.shape[0])
        of_a = of_narrow.t().mm(x.reshape(-1, x.shape[-1]))
        of_x = of_narrow.mm(a).view_as(x) if ctx.needs_input_grad[1] else None
        return gradient, of_x, of_low, None, of_a.to(ctx.dtype), of_b.to(ctx.dtype), None


def add_update(own: Tensor, mixed: Tensor, b: Tensor, factor: float) -> Tensor:
    """``own + factor · mixed Bᵀ``, in place."""
    update = nn.functional.linear(mixed, b)
    if exact(factor):
        return own.add_(update, alpha=factor)
    return own.add_(update.mul_(factor))


def exact(factor: float) -> bool:
    """Whether multiplying by ``factor`` rounds nothing: a power of two."""
    return abs(math.frexp(factor)[0]) == 0.5


def can_be_fused(layer: Any, adapter: str, x: Tensor, hooks: int) -> bool:
    """Whether peft would compute nothing but ``W x + s · B(m ∘ (A x))`` of ``x``, all in one precision.

    Args:
        layer: peft's.
        adapter: the gated one.
        x: the layer's input.
        hooks: hooks of ``lora_A`` that the gate has put there; of others, one may want to see what passes.
    """
    a, b, base = layer.lora_A[adapter], layer.lora_B[adapter], layer.base_layer
    device = x.device.type
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else a.weight.dtype
    return (
        type(layer) is LoraLinear
        and type(base) is nn.Linear
        and x.ndim == 3
        and x.dtype == low == base.weight.dtype
        and not layer.disable_adapters
        and not layer.merged
        and layer.active_adapters == [adapter]
        and adapter not in layer.lora_variant
        and (not layer.training or drops_nothing(layer.lora_dropout[adapter]))
        and a.bias is None
        and b.bias is None
        and a.weight.dtype == b.weight.dtype
        and len(a._forward_hooks) == hooks
        and not (b._forward_hooks or base._forward_hooks or a._backward_hooks or b._backward_hooks)
    )


def drops_nothing(dropout: nn.Module) -> bool:
    """Whether a layer's dropout leaves all as it is, in training too."""
    return isinstance(dropout, nn.Identity) or getattr(dropout, "p", None) == 0.0


def fused(layer: Any, adapter: str, x: Tensor, mixing: Tensor, low: Tensor) -> Tensor:
    """The output [B, T, O] of a layer that `can_be_fused`; mixing weights [B, 1 or T, r], and in x's precision."""
    own = layer.base_layer(x)
    if own._is_view():
        # As with a bias: writing to it would write to what autograd takes for another tensor.
        own = own.clone()
    a, b, factor = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter]
    if torch.is_grad_enabled():
        found: Tensor = GatedUpdate.apply(own, x, mixing, low, a, b, factor)
        return found
    return add_update(own, nn.functional.linear(x, a.to(x.dtype)) * low, b.to(x.dtype), factor)
