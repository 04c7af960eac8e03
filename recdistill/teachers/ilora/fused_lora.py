"""A gated LoRA layer in one step of autograd: peft's formula, rounded less often, for less time and memory.

Peft computes ``W x + s · B(m ∘ (A x))``, with m the mixing weights times K and s its scaling, as eight operations that
autograd records one by one. Two of them read and write a tensor as wide as the layer's output, and their gradients do
so again; on a CPU these cost more than the narrow products, and so do the eight themselves where texts are short. Here
s is part of m, which rounds nothing where s is a power of two, and the update is added to ``W x`` by the product that
makes it, which rounds once where peft rounds twice; so is its gradient. Layers of which that does not hold, or that
peft is to compute otherwise, are left to peft.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GatedUpdate(torch.autograd.Function):
    """``x Wᵀ + bias + (mixing ∘ (x Aᵀ)) Bᵀ``.

    Arguments: x [B, T, I], mixing weights [B, 1 or T, r], the same in x's precision, A [r, I], B [O, r], both in x's
    precision, W [O, I] and bias [O] or None, which get no gradient. Products are in that precision; gradients have the
    precision of what they are of, as under autocast.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # type: ignore[override]
        """The layer's output [B, T, O]."""
        x, mixing, low, a, b, a_low, b_low, weight, bias = given
        narrow, mixed = narrow_states(x, low, a_low)
        ctx.save_for_backward(x, low, a_low, b_low, weight, narrow, mixed)
        ctx.precisions = mixing.dtype, a.dtype, b.dtype
        return updated(x, mixed, b_low, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, mixing weights, A and B."""
        x, low, a_low, b_low, weight, narrow, mixed = ctx.saved_tensors
        of_mixing, of_a, of_b = ctx.precisions
        flat = gradient.reshape(-1, gradient.shape[-1])
        from_mixed = flat.mm(b_low).view_as(narrow)
        from_b = flat.t().mm(mixed.view(-1, mixed.shape[-1])).to(of_b)
        from_mixing = (from_mixed * narrow).sum_to_size(low.shape).to(of_mixing) if ctx.needs_input_grad[1] else None
        from_narrow = (from_mixed * low).view(-1, low.shape[-1])
        from_a = from_narrow.t().mm(x.reshape(-1, x.shape[-1])).to(of_a)
        from_x = flat.mm(weight).addmm_(from_narrow, a_low).view_as(x) if ctx.needs_input_grad[0] else None
        return from_x, from_mixing, None, from_a, from_b, None, None, None, None


def narrow_states(x: Tensor, low: Tensor, a_low: Tensor) -> tuple[Tensor, Tensor]:
    """``x Aᵀ`` and the same times the mixing weights, [B, T, r] each."""
    narrow = x.reshape(-1, x.shape[-1]).mm(a_low.t()).view(*x.shape[:2], -1)
    return narrow, narrow * low


def updated(x: Tensor, mixed: Tensor, b_low: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x Wᵀ + bias + mixed Bᵀ``, in memory of its own: an LLM may write to what a layer gives, not to a view of it."""
    found = x.new_empty(*x.shape[:2], len(weight))
    flat, rows = found.view(-1, len(weight)), x.reshape(-1, x.shape[-1])
    if bias is None:
        torch.mm(rows, weight.t(), out=flat)
    else:
        torch.addmm(bias, rows, weight.t(), out=flat)
    flat.addmm_(mixed.view(-1, mixed.shape[-1]), b_low.t())
    return found


class FusedLayer:
    """What a LoRA layer of peft needs to compute its update in one step; see `FusedLinear`.

    Args:
        layer: peft's.
        adapter: the gated one; ``lora_A`` has the hook of its gate already.
        slot: gives the mixing weights, by `GateSlot.factors`.
        number: of the transformer layer.

    Attributes:
        low: A and B in the precision of the pass at hand; None outside of one.
    """

    def __init__(self, layer: Any, adapter: str, slot: Any, number: int) -> None:
        self.adapter, self.slot, self.number = adapter, slot, number
        # Looked up once: modules search for their parts each time.
        self.a, self.b, self.base = layer.lora_A[adapter], layer.lora_B[adapter], layer.base_layer
        self.dropout = layer.lora_dropout[adapter]
        self.low: tuple[Tensor, Tensor] | None = None

    def output(self, x: Tensor, factor: float) -> Tensor:
        """The layer's output [B, T, O] of its input [B, T, I]; ``factor`` is peft's scaling."""
        a, b = self.a.weight, self.b.weight
        mixing, low = self.slot.factors(x.shape[0], x.shape[1], self.number, factor, x.dtype)
        a_low, b_low = self.low or (a.detach().to(x.dtype), b.detach().to(x.dtype))
        weight, bias = self.base.weight, self.base.bias
        if torch.is_grad_enabled():
            found: Tensor = GatedUpdate.apply(x, mixing, low, a, b, a_low, b_low, weight, bias)
            return found
        return updated(x, narrow_states(x, low, a_low)[1], b_low, weight, bias)

    def fits(self, layer: Any, x: Tensor) -> bool:
        """Whether peft would compute the update alone, all in the precision of ``x``, and no hook would see a part."""
        a, b = self.a.weight, self.b.weight
        return (
            x.ndim == 3
            and x.dtype == (autocast_precision(x.device) or a.dtype) == self.base.weight.dtype
            and a.dtype == b.dtype
            and not (self.base.weight.requires_grad or (self.base.bias is not None and self.base.bias.requires_grad))
            and not layer.disable_adapters
            and not layer.merged
            and layer.active_adapters == [self.adapter]
            and is_power_of_two(layer.scaling[self.adapter])
            and (not layer.training or isinstance(self.dropout, nn.Identity))
            and len(self.a._forward_hooks) == 1
            and not (self.b._forward_hooks or self.base._forward_hooks or self.base._forward_pre_hooks)
            # Accelerate replaces the forward pass of a layer whose weights it fetches.
            and "forward" not in vars(self.base)
        )


class FusedLinear(LoraLinear):
    """Peft's LoRA over a linear layer, fused where that gives what peft gives; see `fuse`."""

    fused: FusedLayer

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        """The layer's output [B, T, O] of its input [B, T, I], or what peft makes of another."""
        if others or named or not self.fused.fits(self, x):
            by_peft: Tensor = super().forward(x, *others, **named)
            return by_peft
        return self.fused.output(x, self.scaling[self.fused.adapter])


def fuse(layer: Any, adapter: str, slot: Any, number: int) -> FusedLayer | None:
    """Make a layer of peft, in place, one that can be fused; arguments as of `FusedLayer`. None where it cannot be."""
    if (
        type(layer) is not LoraLinear
        or type(layer.base_layer) is not nn.Linear
        or layer.lora_A[adapter].bias is not None
        or layer.lora_B[adapter].bias is not None
        or adapter in layer.lora_variant
    ):
        return None
    # By its class: a forward pass of its own would be a circle of references, which keeps an LLM in memory.
    fused = FusedLayer(layer, adapter, slot, number)
    layer.__class__ = FusedLinear
    layer.__dict__["fused"] = fused
    return fused


def lower_weights(layers: Iterable[FusedLayer]) -> None:
    """Before a pass under autocast: make A and B of all layers in its precision, together."""
    layers = list(layers)
    weights = [weight.detach() for layer in layers for weight in (layer.a.weight, layer.b.weight)]
    precision = autocast_precision(weights[0].device) if weights else None
    if precision is None or len({(weight.device, weight.dtype) for weight in weights}) > 1:
        return
    together = torch.cat([weight.reshape(-1) for weight in weights]).to(precision)
    parts = together.split([weight.numel() for weight in weights])
    lowered = [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
    for layer, a, b in zip(layers, lowered[::2], lowered[1::2], strict=True):
        layer.low = a, b


def autocast_precision(device: torch.device) -> torch.dtype | None:
    """The precision of products under autocast; None where it is off."""
    # The device of tensors without values has none.
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def is_power_of_two(factor: float) -> bool:
    """Whether multiplying by ``factor`` rounds nothing."""
    return abs(math.frexp(factor)[0]) == 0.5
