"""Caser: convolutions over the history as an image (Tang & Wang, WSDM 2018), as DLLM2Rec releases it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.dropout import Dropout
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.student import Student

HEIGHTS = (2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class CaserOptions:
    """Own options of a Caser."""

    filters: int = option(16, "Caser's horizontal filters of each height", least=1)


@STUDENTS.register("caser", options=CaserOptions, gradient=True)
class Caser(Student):
    """Convolutional recommender, not causal: one sample a window; see `Student` for the interface.

    Horizontal filters of heights 2, 3 and 4, ReLU and maximum over time; one vertical filter over all
    positions, ReLU; both concatenated, dropout. Padding counts as zero embeddings. With a tied output a
    Linear brings the features to the width of the item embedding.

    Args:
        items: the item embedding, width D.
        dropout: probability on the concatenated features.
        max_length: the height L of the vertical filter, at least 4; shorter windows are padded to it.
        output: see `Student`.
        filters: horizontal filters of each height (the release has 16).

    Raises:
        InputError: ``max_length`` is below 4.
    """

    causal = False
    batches_seeds = True

    def __init__(self, items: ItemEmbedding, dropout: float, max_length: int, output: str, filters: int = 16) -> None:
        if max_length < max(HEIGHTS):
            raise InputError(f"max_length={max_length}: caser needs at least {max(HEIGHTS)}; give a larger one")
        hidden_size = items.hidden_size
        features = filters * len(HEIGHTS) + hidden_size
        super().__init__(items, features if output == "linear" else hidden_size, max_length, output)
        self.horizontal = nn.ModuleList(nn.Conv1d(hidden_size, filters, height) for height in HEIGHTS)
        self.vertical = nn.Linear(max_length, 1)
        self.dropout = Dropout(dropout)
        self.to_item_space = nn.Identity() if output == "linear" else nn.Linear(features, hidden_size)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.xavier_normal_(module.weight)
                nn.init.constant_(module.bias, 0.1)  # type: ignore[arg-type]
        nn.init.xavier_normal_(self.vertical.weight)
        nn.init.constant_(self.vertical.bias, 0.1)

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States [S, D] of windows [W, L], S = W; see `Student.forward`.

        Raises:
            InputError: L exceeds ``max_length``, or a sample is not at the last item of its window.
        """
        self._check_length(history)
        # On an accelerator the answer would have to be waited for, and under vmap there is none.
        asked = column.device.type == "cpu" and not torch._C._are_functorch_transforms_active()
        if asked and not torch.equal(column, length[row] - 1):
            raise InputError("Caser is not causal; give one sample a window, at the window's last item")
        missing = self.max_length - history.shape[1]
        history = F.pad(history, (0, missing), value=self.num_items)
        padding = torch.arange(self.max_length, device=length.device) >= length.unsqueeze(-1)
        image = self.items(history).masked_fill(padding.unsqueeze(-1), 0.0)  # (W, L, D)
        vertical = (self.vertical.weight @ image).squeeze(1) + self.vertical.bias  # (W, D)
        features = F.relu(torch.cat([*self._horizontal(image), vertical], dim=-1))
        states = self.to_item_space(self.dropout(features))
        return states.index_select(0, row)

    def _horizontal(self, image: Tensor) -> Iterator[Tensor]:
        """For each height the maximum over time of its filters [W, F]; the ReLU is monotone and may come after it."""
        # One product for all taps of all filters: on a CPU faster than convolutions, forward and backward.
        taps = torch.cat([tap for filters in self.horizontal for tap in filters.weight.unbind(dim=2)])  # type: ignore[operator]
        found = iter((image @ taps.T).split(taps.shape[0] // sum(HEIGHTS), dim=-1))  # (W, L, F), tap after tap
        for height, convolution in zip(HEIGHTS, self.horizontal, strict=True):
            last = image.shape[1] - height + 1
            filtered = next(found)[:, :last] + convolution.bias
            for shift in range(1, height):
                filtered = filtered + next(found)[:, shift : shift + last]
            yield filtered.amax(dim=1)
