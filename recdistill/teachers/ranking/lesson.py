"""The lesson of a ranking teacher: next items, predicted from packed or single prompts."""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.data.batches import Batch, batches
from recdistill.teachers.ilora.gate import gate_metrics
from recdistill.teachers.protocol import Lesson

if TYPE_CHECKING:
    from recdistill.teachers.ranking.teacher import RankingTeacher


def ranking_lesson(teacher: "RankingTeacher") -> Lesson[Batch]:
    """Next-item cross-entropy over the catalogue, less the history where that is left out of rankings, and less
    items that are no training target."""
    config, model, train = teacher.config, teacher.model, teacher.data.train
    # Items that are no training target: the loss would only push them away.
    new = np.flatnonzero(~teacher.data.trained)
    untrained = torch.as_tensor(new, device=teacher.device) if len(new) else None

    def step(batch: Batch) -> dict[str, Tensor]:
        logits, _ = teacher.score(batch)
        if config.mask_seen:
            logits = teacher.exclude(logits, train, batch.sample, batch.target)
        if untrained is not None:
            logits = logits.index_fill(1, untrained, -torch.inf)
        total = F.cross_entropy(logits, batch.target.to(logits.device))
        return {"total": total} | gate_metrics(model.sample_gates)

    def size(batch: Batch) -> dict[str, int]:
        return {"samples": len(batch), "tokens": teacher.num_tokens(train, batch)}

    return Lesson(
        module=model,
        parameters=model.trained(),
        groups=teacher.parameter_groups(),
        batches=lambda: training_batches(teacher),
        step=step,
        size=size,
        divide=Batch.part,
    )


def training_batches(teacher: "RankingTeacher") -> Iterator[Batch]:
    """Batches of about ``tokens_per_batch`` tokens, pass after pass."""
    config, data = teacher.config, teacher.data
    samples = max(1, round(config.tokens_per_batch / teacher.tokens_a_sample()))
    index = data.trainable(config.exclude_seen)
    for epoch in count():
        yield from batches(
            data.train,
            length=teacher.window,
            batch_size=max(samples, teacher.stride),
            stride=teacher.stride,
            padding_id=data.padding_id,
            seed=config.seed,
            epoch=epoch,
            index=index,
        )
