"""From vectors of items' texts to a student's item space: ridge regression in closed form (Hoerl and Kennard 1970).

A finished student knows the items that it was trained on by their embeddings Y [n, d]. Of a new item only its text is
known, as a vector x. The map is fitted to the trained items:

    minimise  sum_i w_i |y_i - b - W' x_i|^2 + lambda |W|^2

with weights w_i that grow with how often an item is a training target, as the embedding of a rare item is noise, and a
free intercept b. The penalty is chosen by cross-validation over items: see `fit_item_map`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import InputError

FOLDS = 5
#: Penalties, as shares of the weighted mean squared length of the centred vectors.
PENALTIES = tuple(float(f"{value:.3g}") for value in np.logspace(-4, 1, 16))
#: An item's weight is its count to this power: 0 would heed the noise of rare items, 1 forget all but popular ones.
POWER = 0.5
#: Directions whose share of the greatest variance is smaller are rounding.
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class ItemMap:
    """An affine map from vectors of texts to item embeddings: ``vectors @ weight + bias``.

    Attributes:
        weight: float64 [D, d].
        bias: float64 [d].
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """Embeddings float32 [n, d] of vectors [n, D]."""
        if vectors.ndim != 2 or vectors.shape[1] != len(self.weight):
            raise InputError(
                f"vectors have shape {list(vectors.shape)}; the map reads {len(self.weight)} numbers an item: "
                "make them as those that it was fitted to"
            )
        return (vectors.to(self.weight) @ self.weight + self.bias).float()


@dataclass(frozen=True)
class Terms:
    """What a map is fitted by.

    Attributes:
        penalty: lambda, with weights of sum 1, as a share of the weighted mean squared length of the centred vectors.
        power: an item counts ``item_count ** power``.
        explained: share of the embeddings' variance that the map explains of items that it was not fitted to, items
            counted as often as they are training targets; below 0 where their mean does better.
    """

    penalty: float
    power: float
    explained: float


class RidgePath:
    """Ridge regressions of one set of rows for all penalties: one decomposition, then a product for each penalty.

    The smaller of the matrices X'X [D, D] and XX' [n, n] is decomposed.

    Args:
        vectors: float64 [n, D].
        targets: float64 [n, d].
        weight: float64 [n], not negative, of a sum above 0.
    """

    def __init__(self, vectors: Tensor, targets: Tensor, weight: Tensor) -> None:
        share = (weight / weight.sum()).unsqueeze(1)
        self.mean_vector = (share * vectors).sum(dim=0)
        self.mean_target = (share * targets).sum(dim=0)
        root = share.sqrt()
        centred, answer = root * (vectors - self.mean_vector), root * (targets - self.mean_target)
        # With weights of sum 1: the mean squared length of the rows.
        self.scale = float(centred.square().sum())
        if centred.shape[0] >= centred.shape[1]:
            variance, directions = torch.linalg.eigh(centred.T @ centred)
            projected = directions.T @ (centred.T @ answer)
        else:
            variance, left = torch.linalg.eigh(centred @ centred.T)
            size = variance.clamp(min=LEAST_VARIANCE * max(self.scale, LEAST_VARIANCE)).sqrt()
            directions = centred.T @ (left / size)
            projected = size.unsqueeze(1) * (left.T @ answer)
        kept = variance > LEAST_VARIANCE * max(self.scale, LEAST_VARIANCE)
        self.variance, self.directions = variance[kept], directions[:, kept]
        #: X'Y in these directions.
        self.projected = projected[kept]

    def coefficients(self, penalty: float) -> Tensor:
        """Coefficients [r, d] in the directions, for a penalty as a share of the mean squared length of a row."""
        return self.projected / (self.variance + penalty * self.scale).unsqueeze(1)

    def predictions(self, vectors: Tensor, penalties: Sequence[float]) -> Iterator[Tensor]:
        """Predicted targets [m, d] of vectors [m, D], for each penalty."""
        inside = (vectors - self.mean_vector) @ self.directions
        for penalty in penalties:
            yield self.mean_target + inside @ self.coefficients(penalty)

    def map(self, penalty: float) -> ItemMap:
        """The regression of a penalty."""
        weight = self.directions @ self.coefficients(penalty)
        return ItemMap(weight, self.mean_target - self.mean_vector @ weight)


def fit_item_map(vectors: Tensor, embeddings: Tensor, count: Tensor, *, seed: int = 0) -> tuple[ItemMap, Terms]:
    """The map from texts' vectors to item embeddings, its penalty chosen by cross-validation over items.

    The n trained items are dealt into five folds. Of all `PENALTIES` that is taken whose squared error on held-out
    folds is least, an item's error counted as often as it is a training target: the error at the next target.

    Args:
        vectors: [n, D], of trained items.
        embeddings: [n, d], of the same items; the student's item table.
        count: [n], at least 1 each, how often an item is a training target.
        seed: of the folds.

    Raises:
        InputError: there are fewer than two items.
    """
    if len(vectors) < 2:
        raise InputError(f"item_map=ridge: {len(vectors)} trained items are too few for a map; give more data")
    vectors, embeddings, count = vectors.double(), embeddings.detach().double(), count.double()
    weight = count**POWER
    errors = held_out_errors(vectors, embeddings, count, weight, item_folds(len(vectors), seed))
    place = int(errors.argmin())
    spread = (embeddings - (count.unsqueeze(1) * embeddings).sum(dim=0) / count.sum()).square().sum(dim=1)
    total = float((count * spread).sum())
    explained = 1 - float(errors[place]) / total if total else 0.0
    return RidgePath(vectors, embeddings, weight).map(PENALTIES[place]), Terms(PENALTIES[place], POWER, explained)


def item_folds(num_items: int, seed: int) -> list[Tensor]:
    """Deal items 0 .. n-1 into `FOLDS` folds, fewer where there are fewer items: int64, ascending in each."""
    order = torch.randperm(num_items, generator=torch.Generator().manual_seed(seed))
    folds = min(FOLDS, num_items)
    return [order[fold::folds].sort().values for fold in range(folds)]


def held_out_errors(
    vectors: Tensor, embeddings: Tensor, count: Tensor, weight: Tensor, folds: Sequence[Tensor]
) -> Tensor:
    """Squared errors on held-out items, by penalty: float64 [P], sums over items, each counted ``count`` times."""
    errors = torch.zeros(len(PENALTIES), dtype=torch.float64)
    for fold in folds:
        rest = torch.ones(len(vectors), dtype=torch.bool)
        rest[fold] = False
        path = RidgePath(vectors[rest], embeddings[rest], weight[rest])
        for place, predicted in enumerate(path.predictions(vectors[fold], PENALTIES)):
            errors[place] += (count[fold] * (predicted - embeddings[fold]).square().sum(dim=1)).sum()
    return errors
