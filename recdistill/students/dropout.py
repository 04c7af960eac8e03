"""Dropout whose mask costs an eighth of a random number an element."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recdistill.errors import InputError

# Values of a random byte.
LEVELS = 256


class Dropout(nn.Module):
    """Zeroes elements in training, as `torch.nn.Dropout`; each element's mask is a byte of a 64-bit random number.

    An element is kept where its byte is below ``keep * 256``: the probability is rounded to 1/256, and what is kept is
    divided by the rounded one, so that the mean is exact. On an accelerator, whose own dropout is fast, and under
    torch.compile, which joins it to what is beside it, it is torch's.
    Numbers come from torch's global generator of the device.

    Args:
        probability: of zeroing, in [0, 1).

    Raises:
        InputError: the probability is out of range.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1 or not math.isfinite(probability):
            raise InputError(f"dropout={probability}: must be a probability of at least 0 and below 1")
        self.probability = probability
        self.kept_levels = min(LEVELS, max(1, round((1 - probability) * LEVELS))) if probability else LEVELS

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape; the values themselves in evaluation mode, or with a probability of 0."""
        if not self.training or not self.probability:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return nn.functional.dropout(values, self.probability)
        if torch._C._are_functorch_transforms_active():
            found: Tensor = _MaskedUnderVmap.apply(values, self.kept_levels)[0]
        else:
            found = _Masked.apply(values, self.kept_levels)
        return found

    def extra_repr(self) -> str:
        """The probability, where the module is printed."""
        return f"p={self.probability}"


def random_bytes(count: int) -> Tensor:
    """Independent uniform bytes, uint8 [count], of torch's global generator of the CPU."""
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.uint8)[:count]


def random_mask(values: Tensor, kept_levels: int) -> Tensor:
    """A mask of 0 and ``256 / kept_levels``, of the shape and type of the values."""
    mask = torch.empty(values.shape, dtype=values.dtype)
    if kept_levels < LEVELS:
        torch.lt(random_bytes(values.numel()).view(values.shape), kept_levels, out=mask)
        return mask.mul_(LEVELS / kept_levels)
    return mask.fill_(1.0)


class _Masked(torch.autograd.Function):
    """Values times a random mask."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept_levels: int) -> Tensor:
        mask = random_mask(values, kept_levels)
        ctx.save_for_backward(mask)
        return values * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


class _MaskedUnderVmap(torch.autograd.Function):
    """`_Masked` for `torch.func.vmap`: each element has a byte of its own. It takes longer to be called."""

    @staticmethod
    def forward(values: Tensor, kept_levels: int) -> tuple[Tensor, Tensor]:
        mask = random_mask(values, kept_levels)
        return values * mask, mask

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        # Else a gradient of zeros is made for the mask.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], values: Tensor, kept_levels: int) -> tuple[Any, tuple[int, int]]:
        return _MaskedUnderVmap.apply(values, kept_levels), (in_dims[0], in_dims[0])
