"""Root-mean-square normalisation in bfloat16 on a CPU, in the fewest passes over the states.

The layers of transformers (Zhang & Sennrich 2019, "Root Mean Square Layer Normalization") take seven passes over the
states in float32, and autograd more; in a small LLM that is a sixth of all time. Here forward and backward pass are
written out: the same formula, rounded where it rounds.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: How layers of transformers name what is added to the mean square.
EPSILONS = ("variance_epsilon", "eps")
#: Largest difference from the layer itself that rounding explains: the last bit of bfloat16.
ROUNDING = 2.0**-7


class Normalised(torch.autograd.Function):
    """`normalised`, with a gradient of the states: arguments as there, the weight gets none."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:  # type: ignore[override]
        """The normalised states."""
        states, weight, epsilon, added = given
        found, scale = normalised(states, weight, epsilon, added)
        ctx.save_for_backward(states, scale, weight)
        ctx.added = added
        return found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Of x: (g ∘ w - x̂ · mean(g ∘ w ∘ x̂)) / rms, where x̂ = x / rms."""
        states, scale, weight = ctx.saved_tensors
        weighted = gradient.float().mul_(weight.float() + ctx.added)
        plain = states.float().mul_(scale)
        along = torch.linalg.vecdot(weighted, plain).div_(states.shape[-1]).unsqueeze(-1)
        found = weighted.sub_(plain.mul_(along)).mul_(scale)
        return found.to(states.dtype), None, None, None


def normalised(states: Tensor, weight: Tensor, epsilon: float, added: float) -> tuple[Tensor, Tensor]:
    """``x / rms(x)`` times the weight, and ``1 / rms(x)`` in float32.

    Args:
        states: x [..., H] in low precision.
        weight: [H].
        epsilon: added to the mean square.
        added: to the weight: 0, and states are rounded before they are multiplied (Llama); or 1, and they are rounded
            after it (Gemma).
    """
    wide = states.float()
    # Not of the squares, which would be one more tensor.
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
    wide.mul_(scale)
    if added:
        return wide.mul_(weight.float() + added).to(states.dtype), scale
    return wide.to(states.dtype).mul_(weight), scale


class QuickNorm(nn.Module):
    """What a layer of transformers becomes, beside its own class; see `quicken_norms`."""

    weight: Tensor
    epsilon: float
    added: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The normalised states, in their precision."""
        if not self.suits(hidden_states):
            return cast(Tensor, super().forward(hidden_states))
        given = hidden_states, self.weight, self.epsilon, self.added
        if torch.is_grad_enabled() and hidden_states.requires_grad:
            return cast(Tensor, Normalised.apply(*given))
        return normalised(*given)[0]

    def suits(self, states: Tensor) -> bool:
        """Whether it is in bfloat16 on a CPU, and nothing but the states wants a gradient."""
        kinds = {(one.device.type, one.dtype) for one in (states, self.weight)}
        return kinds == {("cpu", torch.bfloat16)} and not self.weight.requires_grad


def quicken_norms(model: nn.Module) -> int:
    """Make a model's layers of this kind, in place, ones that are computed here. Returns how many were.

    A layer is of this kind where its class says so and it gives what `normalised` gives, but for rounding.
    """
    classes: dict[type, type] = {}
    count = 0
    for layer in model.modules():
        kind = type(layer)
        if not kind.__name__.endswith("RMSNorm") or isinstance(layer, QuickNorm):
            continue
        if (found := form_of(layer)) is None:
            continue
        layer.__dict__["epsilon"], layer.__dict__["added"] = found
        layer.__class__ = classes.setdefault(kind, type(kind.__name__, (QuickNorm, kind), {}))
        count += 1
    return count


@torch.no_grad()
def form_of(layer: Any) -> tuple[float, float] | None:
    """What the layer adds to the mean square and to its weight; None where it computes something else."""
    weight = getattr(layer, "weight", None)
    epsilon = next((getattr(layer, name) for name in EPSILONS if isinstance(getattr(layer, name, None), float)), None)
    own_state = len(layer._parameters) + len(layer._buffers) + len(layer._modules)
    if not isinstance(weight, Tensor) or weight.ndim != 1 or epsilon is None or own_state != 1:
        return None
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return None
    # Numbers of all sizes, no two rows alike.
    states = torch.linspace(-3, 3, 4 * len(weight)).pow(3).view(1, 4, -1).to(weight.dtype)
    expected = layer(states).float()
    for added in (0.0, 1.0):
        given = normalised(states, weight, epsilon, added)[0].float()
        if given.shape == expected.shape and torch.allclose(given, expected, rtol=ROUNDING, atol=0.0):
            return epsilon, added
    return None
