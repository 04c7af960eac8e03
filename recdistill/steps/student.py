"""What the steps that train or rank with a student share: its shape, its batches, its validation, its results."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recdistill.config import BackboneConfig, DataConfig, own_fields
from recdistill.data.batches import Batch, batches
from recdistill.data.load import load_data
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import evaluate
from recdistill.evaluation.metrics import metrics_from_ranks
from recdistill.students.build import StudentShape, save_student
from recdistill.students.student import Student
from recdistill.tracking.runs import StepRun
from recdistill.training.fit import Progress, Recipe, fit

STUDENT_SETTINGS = own_fields(BackboneConfig, DataConfig)
STUDENT_CODE = ["data", "students", "distill", "evaluation", "training", "steps/student.py"]
CUTOFFS = (1, 5, 10, 20)


def data_of(config: DataConfig) -> SequenceData:
    """The data set of the options."""
    return load_data(
        config.dataset, config.interactions, config.items, config.split, config.min_interactions, config.max_users
    )


def device_of(config: DataConfig) -> torch.device:
    """``auto`` is the accelerator where there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if config.device == "auto" else config.device)


def shape_of(config: BackboneConfig) -> StudentShape:
    """The student of the options."""
    return StudentShape(
        student=config.student,
        hidden_size=config.hidden_size,
        blocks=config.blocks,
        heads=config.heads,
        dropout=config.dropout,
        max_length=config.max_length,
        output=config.output,
    )


def scorer(model: Student, device: torch.device) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Scores [S, V] of windows, for `evaluation.evaluate`."""

    def score(history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        windows = (part.to(device) for part in (history, length, row, column))
        return model.logits(model(*windows))

    return score


def measure(
    model: Student, samples: Samples, num_items: int, exclude_seen: bool, part: str, device: torch.device
) -> dict[str, float]:
    """``part/hr_at_10`` and its like, over all samples and the whole catalogue."""
    model.eval()
    ranks = evaluate(
        scorer(model, device),
        samples,
        num_items=num_items,
        max_length=model.max_length,
        exclude_seen=exclude_seen,
    )
    return {f"{part}/{name}": value for name, value in metrics_from_ranks(ranks, CUTOFFS).items()}


def student_batches(config: BackboneConfig, data: SequenceData, causal: bool) -> Callable[[int], Iterator[Batch]]:
    """The batches of each epoch. A causal student answers half a window of samples at once."""
    stride = max(1, config.max_length // 2) if causal else 1

    def of_epoch(epoch: int) -> Iterator[Batch]:
        return batches(
            data.train,
            length=config.max_length,
            batch_size=max(config.batch_size, stride),
            stride=stride,
            padding_id=data.padding_id,
            seed=config.seed,
            epoch=epoch,
        )

    return of_epoch


def train_student(
    config: BackboneConfig,
    data: SequenceData,
    model: Student,
    run: StepRun,
    step: Callable[[Batch], dict[str, Tensor]],
    begin_epoch: Callable[[int], dict[str, float]] | None = None,
    memory: dict[str, Tensor] | None = None,
    fold: bool = False,
) -> Progress:
    """Fit by validation NDCG@10, then measure on test once, and keep the student as the artifact ``student``."""
    device = device_of(config)
    model.to(device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    num_items = data.num_items
    recipe = Recipe(
        parameters=dict(model.named_parameters()),
        optimizer=optimizer,
        batches=student_batches(config, data, model.causal),
        step=step,
        num_batches=-(-len(data.train) // config.batch_size),
        module=model,
        epochs=config.epochs,
        validate=lambda: measure(model, data.validation, num_items, config.exclude_seen, "val", device),
        patience=config.patience,
        begin_epoch=begin_epoch,
        memory=memory if memory is not None else {},
        label=f"{config.student} epoch",
    )
    progress = fit(recipe, run.work / "student.safetensors", run.log_metrics)
    started = time.perf_counter()
    results = measure(model, data.test, num_items, config.exclude_seen, "test", device)
    per_thousand = (time.perf_counter() - started) * 1e6 / len(data.test)
    run.log_metrics(
        progress.best_metrics
        | results
        | {
            "best_epoch": progress.best_epoch,
            "train_seconds": progress.seconds,
            "ms_per_1000_recommendations": per_thousand,
        },
        progress.epoch,
    )
    run.log_folder("student", lambda folder: save_student(folder, model, shape_of(config), fold=fold))
    return progress
