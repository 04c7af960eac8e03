"""``backbone``: a student without teacher; the SASRec is also what the teacher's gate and injection read."""

import torch
from torch import Tensor

from recdistill.config import BackboneConfig
from recdistill.data.batches import Batch
from recdistill.distill.objective import dllm2rec_loss
from recdistill.steps.student import (
    STUDENT_CODE,
    STUDENT_SETTINGS,
    data_of,
    device_of,
    shape_of,
    train_student,
)
from recdistill.students.build import build_student
from recdistill.tracking.runs import StepRun, step_run


def backbone(config: BackboneConfig) -> StepRun:
    """Train, or find, the student of the options."""
    data = data_of(config)
    with step_run(
        "backbone",
        config,
        fingerprint=data.fingerprint,
        settings=STUDENT_SETTINGS,
        code=[*STUDENT_CODE, "steps/backbone.py"],
        dataset=data.name,
    ) as run:
        if run.reused:
            return run
        torch.manual_seed(config.seed)
        model = build_student(shape_of(config), data.num_items)
        device = device_of(config)

        def step(batch: Batch) -> dict[str, Tensor]:
            batch = batch.to(device)
            logits = model.logits(model(batch.history, batch.length, batch.row, batch.column))
            return dllm2rec_loss(
                logits,
                batch.target,
                propensity=None,
                alpha=0.0,
                beta=1.0,
                base_loss=config.base_loss,
                negative=sampled_negatives(config.base_loss, batch.target, data.num_items),
            )

        train_student(config, data, model, run, step)
    return run


def sampled_negatives(base_loss: str, target: Tensor, num_items: int) -> Tensor | None:
    """One item beside the target for each sample [S], uniformly; None where the loss needs none."""
    if base_loss != "bce":
        return None
    drawn = torch.randint(num_items - 1, target.shape).to(target.device)
    return drawn + (drawn >= target)
