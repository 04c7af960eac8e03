"""A data set whose validation and test targets are training targets, too: what a student that is served learns from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData


def all_as_training(data: SequenceData) -> SequenceData:
    """The same data set with all samples as training samples: those of training first, then validation's and test's.

    Its other parts stay; they can measure nothing that learns from it.
    """
    return replace(data, train=joined((data.train, data.validation, data.test)))


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples one part after another."""
    shared = all(part.items is parts[0].items for part in parts)
    sizes = [0 if shared else len(part.items) for part in parts]
    offset = np.cumsum([0, *sizes[:-1]])
    target = None
    if any(part.target is not None for part in parts):
        target = np.concatenate([part.targets for part in parts])
    return Samples(
        parts[0].items if shared else np.concatenate([part.items for part in parts]),
        np.concatenate([part.start + more for part, more in zip(parts, offset, strict=True)]),
        np.concatenate([part.end + more for part, more in zip(parts, offset, strict=True)]),
        np.concatenate([part.user for part in parts]),
        target,
    )
