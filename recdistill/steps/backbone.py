"""``backbone``: a student without teacher; the SASRec is also what the teacher's gate and injection read."""

import torch
from torch import Tensor

from recdistill.config import BackboneConfig
from recdistill.data.batches import Batch
from recdistill.data.sequences import SequenceData
from recdistill.distill.negatives import sampled_negatives
from recdistill.distill.objective import dllm2rec_loss
from recdistill.steps.inputs import data_of, device_of
from recdistill.steps.student import STUDENT_CODE, STUDENT_SETTINGS, Report, shape_of, train_student
from recdistill.students.build import build_student
from recdistill.tracking.runs import StepRun, key_of, step_run
from recdistill.tracking.served_model import register_student

CODE = [*STUDENT_CODE, "steps/backbone.py"]


def backbone(config: BackboneConfig, *, report: Report | None = None) -> StepRun:
    """Train, or find, the student of the options; ``report`` as in `steps.student.train_student`."""
    data = data_of(config)
    with step_run("backbone", config, data=data, settings=STUDENT_SETTINGS, code=CODE) as run:
        if not run.reused:
            train(config, data, run, report)
    if config.register:
        register_student(run.run_id, config.register)
    return run


def train(config: BackboneConfig, data: SequenceData, run: StepRun, report: Report | None) -> None:
    """Fit the student by the base loss alone."""
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
            negative=sampled_negatives(
                config.base_loss, batch.histories(data.padding_id), batch.target, data.num_items
            ),
        )

    progress = train_student(config, data, model, run, step, report=report)
    run.describe(
        f"Undistilled {config.student} on {data.name} ({data.split}), {len(data.train):,} training samples; "
        f"best of {progress.epoch} epochs by validation NDCG@10: {progress.best_epoch + 1}."
    )


def key_of_backbone(config: BackboneConfig, fingerprint: str) -> str:
    """The key of the run that `backbone` makes or finds for these options."""
    return key_of("backbone", config, fingerprint, STUDENT_SETTINGS, CODE, {})
