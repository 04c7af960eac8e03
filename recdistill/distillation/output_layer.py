"""The layer that scores items, or the rows of it that a batch needs."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, searchsorted

from recdistill.errors import InputError


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

    def float(self) -> "OutputLayer":
        """The same in float32."""
        return replace(self, weight=self.weight.float(), bias=None if self.bias is None else self.bias.float())

    def _place(self, items: Tensor) -> Tensor:
        return items if self.ids is None else searchsorted(self.ids, items)
