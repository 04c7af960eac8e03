"""The backbone's own scores of samples, each read in a window of its own, as a student is served."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from recdistill.data.batches import Batch, batches
from recdistill.data.samples import Samples
from recdistill.students.student import Student


@torch.no_grad()
def backbone_scores(backbone: Student, batch: Batch) -> tuple[Tensor, Tensor]:
    """The backbone's scores float32 [S, V] of a batch and its states [S, D], on its device."""
    device = next(backbone.parameters()).device
    parts = (batch.history, batch.length, batch.row, batch.column)
    states = backbone(*(part.to(device) for part in parts))
    return backbone.logits(states).float(), states


def own_windows(
    backbone: Student,
    samples: Samples,
    size: int,
    padding_id: int,
    *,
    shuffle: bool,
    seed: int,
    index: np.ndarray | None,
) -> Iterator[Batch]:
    """Batches of ``size`` samples (those at ``index``, where given), each with a window of its own."""
    return batches(
        samples,
        length=backbone.max_length,
        batch_size=size,
        stride=1,
        padding_id=padding_id,
        seed=seed,
        epoch=0,
        shuffle=shuffle,
        index=index,
    )
