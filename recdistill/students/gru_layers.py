"""The layers of a `torch.nn.GRU` on a CPU, in training: per step only what waits for the step before.

PyTorch records every small operation of every step for the gradient. Here a layer is one autograd function: products
with the inputs, and all of the gradient but the recurrence itself, are made for all steps at once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def pays(inputs: Tensor) -> bool:
    """Whether `gru_states` is the faster way: for gradients, on a CPU."""
    exact = inputs.dtype in (torch.float32, torch.float64)
    return exact and inputs.device.type == "cpu" and torch.is_grad_enabled() and inputs.shape[1] > 0


def gru_states(gru: nn.GRU, inputs: Tensor) -> Tensor:
    """The last layer's states [W, L, D] of inputs [W, L, D], as ``gru(inputs)[0]``, with the same random numbers.

    Args:
        gru: one direction, with biases.
        inputs: windows, padded on the right.
    """
    states = inputs.transpose(0, 1).contiguous()
    for layer in range(gru.num_layers):
        states = _Layer.apply(states, *(getattr(gru, f"{name}_l{layer}") for name in WEIGHTS))
        if layer + 1 < gru.num_layers:
            states = F.dropout(states, gru.dropout, gru.training)
    return states.transpose(0, 1)


class _Layer(torch.autograd.Function):
    """States [L, W, D] of inputs [L, W, I] (Cho et al., EMNLP 2014, as PyTorch has it).

    Under autocast, too, its products are in float32: each is small, and waits for the one before.

    With gates r and z: ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, and the next state is ``n + z (h - n)``.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, inputs: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> Tensor:
        length, windows = inputs.shape[:2]
        size = weight_hh.shape[1]
        of_input = torch.addmm(bias_ih, inputs.flatten(0, 1), weight_ih.T).view(length, windows, 3 * size)
        of_state, gates = torch.empty_like(of_input), inputs.new_empty(length, windows, 2 * size)
        new, states = (inputs.new_empty(length, windows, size) for _ in range(2))
        state, weight = inputs.new_zeros(windows, size), weight_hh.T
        steps = zip(
            of_state.unbind(),
            *(part.unbind() for whole in (of_input, of_state) for part in whole.split((2 * size, size), dim=2)),
            gates.unbind(),
            *(part.unbind() for part in gates.chunk(2, dim=2)),
            new.unbind(),
            states.unbind(),
            strict=True,
        )
        for whole, x_gates, x_new, h_gates, h_new, both, reset, update, candidate, kept in steps:
            torch.addmm(bias_hh, state, weight, out=whole)
            torch.add(x_gates, h_gates, out=both).sigmoid_()
            torch.addcmul(x_new, reset, h_new, out=candidate).tanh_()
            state = torch.lerp(candidate, state, update, out=kept)
        ctx.save_for_backward(inputs, weight_ih, weight_hh, of_state[..., 2 * size :], gates, new, states)
        return states

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, of_states: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        inputs, weight_ih, weight_hh, h_new, gates, new, states = ctx.saved_tensors
        reset, update = gates.chunk(2, dim=2)
        before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
        # What a step's gates change by, for a change of its state: of r, of z, and of the state's part of n.
        of_new = (1 - update) * (1 - new * new)
        slopes = torch.stack(
            [of_new * h_new * reset * (1 - reset), (before - new) * update * (1 - update), of_new * reset], dim=2
        )
        of_gates, of_state = torch.empty_like(slopes), torch.empty_like(states)
        carried = torch.zeros_like(states[0])
        steps = (of_states, slopes, update, of_state, of_state.unsqueeze(2), of_gates, of_gates.flatten(2))
        for given, slope, kept, change, column, split, whole in zip(
            *(reversed(part.unbind()) for part in steps), strict=True
        ):
            torch.add(given, carried, out=change)
            torch.mul(column, slope, out=split)
            torch.mul(change, kept, out=carried).addmm_(whole, weight_hh)
        flat = of_gates.view(-1, 3 * states.shape[2])
        of_weight_hh, of_bias_hh = flat.T @ before.flatten(0, 1), flat.sum(dim=0)
        # Of the input's part of n no gate stands before.
        torch.mul(of_state, of_new, out=of_gates[:, :, 2])
        of_weight_ih, of_bias_ih = flat.T @ inputs.flatten(0, 1), flat.sum(dim=0)
        return (flat @ weight_ih).view_as(inputs), of_weight_ih, of_weight_hh, of_bias_ih, of_bias_hh
