"""The layer that scores items, or the rows of it that a batch needs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, searchsorted
from torch.autograd.function import once_differentiable

from recdistill.errors import InputError

#: Of so many rows an item asked, all rows are scored, which is faster than reading those asked one by one.
FEW = 8
#: Numbers of the rows that are read at a time, on a CPU and elsewhere: 4 MiB and 256 MiB in float32.
READ, ACCELERATOR_READ = 2**20, 2**26


@dataclass(frozen=True)
class OutputLayer:
    """Scores of items are ``states @ weight^T + bias``.

    Attributes:
        weight: [V, D]; rows beyond V, such as the padding's, are no item. Of some items: [U, D].
        bias: [V] or [U], or None for none.
        num_items: V.
        ids: int64 [U], ascending, the items whose rows these are; None for all V.
    """

    weight: Tensor
    bias: Tensor | None
    num_items: int
    ids: Tensor | None = None

    def logits(self, states: Tensor) -> Tensor:
        """Scores [S, V] of states [S, D]. Raises InputError where only some rows are there."""
        if self.ids is not None:
            raise InputError("the scores of all items are asked for, but the base loss needs some only; use ce or bce")
        return F.linear(states, self.weight[: self.num_items], self.bias)

    def item_logits(self, states: Tensor, items: Tensor) -> Tensor:
        """Scores [S, M] of each state's items [S, M]."""
        place = self._place(items)
        found = (F.embedding(place, self.weight) @ states.unsqueeze(2)).squeeze(2)
        return found if self.bias is None else found + self.bias[place]

    def logits_of(self, states: Tensor, items: Tensor) -> Tensor:
        """Scores [S, N] of the same items [N] for all states."""
        place = self._place(items)
        return F.linear(states, F.embedding(place, self.weight), None if self.bias is None else self.bias[place])

    def own_logits(self, states: Tensor, items: Tensor) -> Tensor:
        """Scores [S, N] of each state's many items [S, N], as `item_logits`, whose [S, N, D] are never held.

        Time and memory are those of S N scores, however many rows there are.
        """
        place = self._place(items)
        if len(self.weight) <= FEW * items.shape[1]:
            weight = self.weight
            if self.bias is not None and len(weight) > len(self.bias):
                weight = weight[: len(self.bias)]
            return F.linear(states, weight, self.bias).gather(1, place)
        found: Tensor = _OwnLogits.apply(states, self.weight, place)
        return found if self.bias is None else found + F.embedding(place, self.bias.unsqueeze(1)).squeeze(2)

    def float(self) -> "OutputLayer":
        """The same in float32."""
        return replace(self, weight=self.weight.float(), bias=None if self.bias is None else self.bias.float())

    def _place(self, items: Tensor) -> Tensor:
        return items if self.ids is None else searchsorted(self.ids, items)


class _OwnLogits(torch.autograd.Function):
    """Products [S, N] of states [S, D] and the rows ``place`` [S, N] of a weight [U, D], by blocks of states."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, place)
        found = states.new_empty(place.shape)
        for part in _blocks(states, place):
            rows = F.embedding(place[part], weight)
            torch.bmm(rows, states[part].unsqueeze(2), out=found[part].unsqueeze(2))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, place = ctx.saved_tensors
        of_states, of_weight = torch.empty_like(states), torch.zeros_like(weight)
        for part in _blocks(states, place):
            slope = gradient[part]
            torch.bmm(slope.unsqueeze(1), F.embedding(place[part], weight), out=of_states[part].unsqueeze(1))
            outer = slope.unsqueeze(2) * states[part].unsqueeze(1)
            of_weight.index_add_(0, place[part].flatten(), outer.flatten(0, 1))
        return of_states, of_weight, None


def _blocks(states: Tensor, place: Tensor) -> Iterator[slice]:
    """Rows of states whose items' rows are read at a time."""
    most = READ if states.device.type == "cpu" else ACCELERATOR_READ
    height = max(1, most // max(1, place.shape[1] * states.shape[1]))
    for start in range(0, len(states), height):
        yield slice(start, start + height)
