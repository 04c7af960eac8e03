"""``backbone``: a student without teacher; the SASRec is also what the teacher's gate and injection read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.config import StudentConfig, BaselineConfig, narrow
from recdistill.data.batches import Batch
from recdistill.data.sequences import SequenceData
from recdistill.distill.negatives import sampled_negatives
from recdistill.distill.objective import dllm2rec_loss
from recdistill.errors import InputError
from recdistill.data.contents import contents_of
from recdistill.steps.inputs import data_of, device_of
from recdistill.steps.student import (
    STUDENT_CODE,
    STUDENT_SETTINGS,
    Report,
    keep_student,
    masked,
    shape_of,
    train_student,
)
from recdistill.students.build import build_student
from recdistill.release.released_students import read_released_sasrec
from recdistill.students.sasrec import SASRec, SelfAttention
from recdistill.runs.step_runs import StepRun, key_of, step_run
from recdistill.runs.served_model import register_student

CODE = [*STUDENT_CODE, "steps/backbone.py"]
IMPORT_CODE = [*CODE, "restricted_pickle.py"]


def backbone(config: StudentConfig, *, report: Report | None = None) -> StepRun:
    """Train, or find, the student of the options; ``report`` as in `steps.student.train_student`.

    With ``released`` it comes out of that file instead, and is measured and kept as a trained one is.
    """
    options = narrow(config, BaselineConfig)
    data = data_of(options)
    if options.released:
        run = imported(options, data)
    else:
        with step_run("backbone", options, data=data, settings=STUDENT_SETTINGS, code=CODE) as run:
            if not run.reused:
                train(options, data, run, report)
    if options.register:
        register_student(run.run_id, options.register)
    return run


def train(config: StudentConfig, data: SequenceData, run: StepRun, report: Report | None) -> None:
    """Fit the student by the base loss alone."""
    torch.manual_seed(config.seed)
    model = build_student(shape_of(config), data.num_items)
    device = device_of(config)

    def step(batch: Batch) -> dict[str, Tensor]:
        batch = batch.to(device)
        _, logits = model.scored(batch.history, batch.length, batch.row, batch.column)
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
            excluded=masked(config, data, batch),
        )

    progress = train_student(config, data, model, run, step, report=report)
    run.describe(
        f"Undistilled {config.student} on {data.name} ({data.split}), {len(data.train):,} training samples; "
        f"best of {progress.epoch} epochs by validation NDCG@10: {progress.best_epoch + 1}."
    )


def imported(config: BaselineConfig, data: SequenceData) -> StepRun:
    """The run of iLoRA's released SASRec. Raises InputError where the file does not fit the data or the options."""
    model = read_released_sasrec(Path(config.released).expanduser())
    if model.num_items != data.num_items:
        raise InputError(
            f"released={config.released}: is a SASRec of {model.num_items} items, this data has {data.num_items}; "
            "give the data set that it was trained on, its items in the order of their ids"
        )
    config = as_released(config, model)
    content = contents_of(config, "released")
    with step_run("backbone", config, data=data, settings=["exclude_seen"], code=IMPORT_CODE, content=content) as run:
        if not run.reused:
            keep_student(config, data, model.to(device_of(config)), run)
            run.describe(
                f"iLoRA's released SASRec ({Path(config.released).name}), not trained here, measured on {data.name} "
                f"({data.split}). It may have been trained on interactions that are held out here."
            )
    return run


def as_released(config: BaselineConfig, model: SASRec) -> BaselineConfig:
    """The options with the shape of a released SASRec. Raises InputError where another shape was asked for."""
    attention = model.attentions[0]
    assert isinstance(attention, SelfAttention)
    shape: dict[str, Any] = {
        "student": "sasrec",
        "hidden_size": model.state_size,
        "blocks": len(model.attentions),
        "heads": attention.heads,
        "dropout": float(model.dropout.p),
        "max_length": model.max_length,
        "output": model.output_kind,
    }
    defaults = StudentConfig()
    for name, value in shape.items():
        asked = getattr(config, name)
        if asked not in (value, getattr(defaults, name)):
            raise InputError(f"{name}={asked}: the student in released={config.released} has {value}; leave {name} out")
    return replace(config, **shape)


def key_of_backbone(config: StudentConfig, fingerprint: str) -> str:
    """The key of the run that `backbone` makes or finds for these options."""
    return key_of("backbone", config, fingerprint, STUDENT_SETTINGS, CODE, {})
