"""ItemKNN: items like those of the history, by cosine (Deshpande & Karypis, ACM TOIS 2004) with shrinkage."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recdistill.config.option import option
from recdistill.registry import STUDENTS
from recdistill.students.interactions import cooccurrence, interaction_matrix, longest_history, multi_hot
from recdistill.students.recommender import ClosedForm

if TYPE_CHECKING:
    from recdistill.data.sequences import SequenceData

ROWS = 1024
# Similarities added up at a time.
MOST_VALUES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ItemKNNOptions:
    """Own options of ItemKNN."""

    neighbours: int = option(50, "ItemKNN's neighbours of an item", least=1)
    shrinkage: float = option(
        10.0, "added to the denominator of ItemKNN's cosine, against chance in few interactions", least=0
    )


@STUDENTS.register("itemknn", options=ItemKNNOptions, gradient=False)
class ItemKNN(ClosedForm):
    """Score of an item: the sum of its similarities to the history's items, where it is among their neighbours.

    Similarity of items i and j had by n_i, n_j and, both, n_ij users: ``n_ij / (sqrt(n_i n_j) + shrinkage)``. Each item
    keeps its ``neighbours`` most similar ones. The order of a history does not count; all of it is read.
    """

    neighbour: Tensor
    similarity: Tensor

    def __init__(self, num_items: int, max_length: int, options: ItemKNNOptions) -> None:
        super().__init__(num_items, max_length, options)
        kept = min(options.neighbours, num_items - 1)
        self.register_buffer("neighbour", torch.zeros(num_items, kept, dtype=torch.int64))
        self.register_buffer("similarity", torch.zeros(num_items, kept))

    @classmethod
    def fit(cls, data: "SequenceData", options: ItemKNNOptions, seed: int) -> "ItemKNN":
        """See `ClosedForm.fit`; draws no random number."""
        model = cls(data.num_items, longest_history(data), options)
        matrix = interaction_matrix(data.train, data.num_items)
        norm = torch.from_numpy(matrix.sum(axis=0)).sqrt()
        for begin in range(0, data.num_items, ROWS):
            end = min(begin + ROWS, data.num_items)
            # An item that nobody had has the norm 0.
            below = (norm[begin:end, None] * norm + options.shrinkage).clamp(min=1e-12)
            similarity = cooccurrence(matrix, begin, end) / below
            similarity[torch.arange(end - begin), torch.arange(begin, end)] = 0
            values, items = similarity.topk(model.similarity.shape[1], dim=1)
            model.similarity[begin:end], model.neighbour[begin:end] = values.float(), items
        return model

    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        """See `Recommender.scores`."""
        row, item = multi_hot(history, length, self.num_items).nonzero(as_tuple=True)
        found = torch.zeros(history.shape[0] * self.num_items, device=history.device)
        step = max(1, MOST_VALUES // max(1, self.neighbour.shape[1]))
        # In ONNX the number of parts would be fixed.
        parts = [(row, item)] if torch.onnx.is_in_onnx_export() else zip(row.split(step), item.split(step), strict=True)
        for rows, items in parts:
            place = rows.unsqueeze(1) * self.num_items + self.neighbour[items]
            found.scatter_add_(0, place.flatten(), self.similarity[items].flatten())
        return found.view(history.shape[0], self.num_items)
