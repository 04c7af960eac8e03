"""Mean, main directions and size of a view, from the trained items alone."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from recdistill.errors import InputError
from recdistill.views.view import Arrays, Float32Array

LEAST = 1e-6  # share of the greatest variance below which a direction is rounding


@dataclass(frozen=True, eq=False)
class Standardiser:
    """The affine map from a view's vectors to its standard ones: z = (x - mean) directions.

    Attributes:
        mean: float32 [D_view], of the trained items.
        directions: float32 [D_view, K], principal directions, scaled.
    """

    mean: Float32Array
    directions: Float32Array

    @classmethod
    def fit(cls, vectors: Float32Array, directions: int, whitening: float) -> Self:
        """Learn from trained items' vectors [n, D_view].

        A direction of variance v gets v ** (1 - whitening), and all together variance 1: views side by side then count
        alike. The component of greatest size of a direction is positive, so that the same vectors give the same map.

        Args:
            vectors: of the trained items.
            directions: most directions that are kept, those of greatest variance.
            whitening: 0 keeps the variances' ratios, 1 makes them equal.

        Raises:
            InputError: there are fewer than two vectors, or they are all the same.
        """
        mean = vectors.mean(axis=0, dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[1])
        centred = vectors.astype(np.float64) - mean
        variance, axes = principal_axes(centred, directions)
        if not len(variance):
            raise InputError(
                "views: all trained items have the same vector; give items texts that differ, as with another item_text"
            )
        # `variance` falls, so that the first is the greatest and the power is of a share of it.
        share = variance / variance[0]
        scale = share ** (-whitening / 2)
        total = float((variance * scale**2).sum())
        scaled = axes * (scale / np.sqrt(total))
        return cls(mean.astype(np.float32), np.ascontiguousarray(scaled, dtype=np.float32))

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """float32 [n, K]."""
        return np.asarray((vectors - self.mean) @ self.directions, dtype=np.float32)

    def arrays(self) -> Arrays:
        """What `of_arrays` takes."""
        return {"mean": self.mean, "directions": self.directions}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Self:
        """The map that `arrays` gave."""
        return cls(arrays["mean"], arrays["directions"])


def principal_axes(centred: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances [K], falling, and orthonormal principal axes [D, K] of centred rows [n, D], K at most ``most``.

    Directions whose variance is rounding are left out. The smaller of the two Gram matrices is decomposed.
    """
    rows, width = centred.shape
    wide = width > rows
    gram = centred @ centred.T if wide else centred.T @ centred
    count = min(most, len(gram))
    if not count or not np.any(gram):
        return np.zeros(0), np.zeros((width, 0))
    value, vector = scipy.linalg.eigh(gram, subset_by_index=[len(gram) - count, len(gram) - 1])
    kept = np.flatnonzero(value > LEAST * value[-1])[::-1]
    value, axes = value[kept], vector[:, kept]
    if wide:
        axes = centred.T @ axes / np.sqrt(value)
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return value / rows, axes * sign
