"""What the steps that train a student share: its shape, its batches, its validation, its results."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recdistill.config import BackboneConfig, DataConfig, own_fields
from recdistill.data.batches import Batch, batches
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import ScoreFunction, evaluate
from recdistill.evaluation.metrics import metrics_from_ranks
from recdistill.evaluation.rank_table import rank_table
from recdistill.steps.inputs import device_of
from recdistill.students.build import StudentShape, save_student
from recdistill.students.student import Student
from recdistill.tracking.runs import StepRun
from recdistill.tracking.served_model import log_student_model
from recdistill.training.fit import Metrics, Progress, Recipe, fit

OWN = [name for name in own_fields(BackboneConfig, DataConfig) if name != "register"]
STUDENT_SETTINGS = [*OWN, "exclude_seen"]
STUDENT_CODE = ["data", "students", "distill", "evaluation", "training", "steps/student.py"]

Report = Callable[[int, Metrics], None]


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


def scorer(model: Student, device: torch.device) -> ScoreFunction:
    """Scores [S, V] of windows, for `evaluation.evaluate`."""

    def score(history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        windows = (part.to(device) for part in (history, length, row, column))
        return model.logits(model(*windows))

    return score


def ranks_of(model: Student, samples: Samples, exclude_seen: bool, device: torch.device) -> Tensor:
    """Rank of each sample's target among the whole catalogue, int64 [N]."""
    model.eval()
    return evaluate(
        scorer(model, device),
        samples,
        num_items=model.num_items,
        max_length=model.max_length,
        exclude_seen=exclude_seen,
    )


def named(part: str, ranks: Tensor) -> Metrics:
    """``part/hr_at_10`` and its like."""
    return {f"{part}/{name}": value for name, value in metrics_from_ranks(ranks).items()}


def log_results(run: StepRun, data: SequenceData, validation: Tensor, test: Tensor, epoch: int = 0) -> None:
    """Log the metrics of the final ranks of both parts, and each sample's rank."""
    run.log_metrics(named("val", validation) | named("test", test), epoch)
    parts = {"val": (validation, data.validation), "test": (test, data.test)}
    run.log_ranks({part: rank_table(ranks, samples, data) for part, (ranks, samples) in parts.items()})


def student_batches(config: BackboneConfig, data: SequenceData, causal: bool) -> Callable[[int], Iterator[Batch]]:
    """The batches of each epoch. A causal student answers half a window of samples at once, at most a batch."""
    stride = max(1, min(config.max_length // 2, config.batch_size)) if causal else 1

    def of_epoch(epoch: int) -> Iterator[Batch]:
        return batches(
            data.train,
            length=config.max_length,
            batch_size=config.batch_size,
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
    *,
    begin_epoch: Callable[[int], Metrics] | None = None,
    memory: dict[str, Tensor] | None = None,
    extra: torch.nn.Module | None = None,
    report: Report | None = None,
) -> Progress:
    """Fit by validation NDCG@10, then measure on test once, and keep the student as the artifact ``student``.

    Args:
        config: options.
        data: what is learnt.
        model: the student, freshly built.
        run: gets curves, results, ranks and the student.
        step: the losses of a batch.
        begin_epoch, memory: see `training.fit.Recipe`.
        extra: what is trained beside the student and not kept.
        report: called with each epoch and its metrics; what it raises ends the run. A trial of a sweep reports, and
            is spared the MLflow model.
    """
    device = device_of(config)
    trained = torch.nn.ModuleDict({"student": model} | ({"extra": extra} if extra is not None else {})).to(device)
    optimizer = torch.optim.Adam(
        trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )

    def log(metrics: Metrics, epoch: int) -> None:
        run.log_metrics(metrics, epoch)
        if report is not None:
            report(epoch, metrics)

    recipe = Recipe(
        parameters=dict(trained.named_parameters()),
        optimizer=optimizer,
        batches=student_batches(config, data, model.causal),
        step=step,
        num_batches=-(-len(data.train) // config.batch_size),
        module=trained,
        epochs=config.epochs,
        validate=lambda: named("val", ranks_of(model, data.validation, config.exclude_seen, device)),
        patience=config.patience,
        begin_epoch=begin_epoch,
        memory=memory if memory is not None else {},
        label=f"{config.student} epoch",
    )
    progress = fit(recipe, run.work / "student.safetensors", log)
    validation = ranks_of(model, data.validation, config.exclude_seen, device)
    started = time.perf_counter()
    test = ranks_of(model, data.test, config.exclude_seen, device)
    per_thousand = (time.perf_counter() - started) * 1e6 / len(data.test)
    log_results(run, data, validation, test, progress.epoch)
    run.log_metrics(
        {
            "best_epoch": progress.best_epoch,
            "train_seconds": progress.seconds,
            "ms_per_1000_recommendations": per_thousand,
        },
        progress.epoch,
    )
    # Folded, so that whoever loads the student needs no teacher.
    run.log_folder("student", lambda folder: save_student(folder, model, shape_of(config), fold=True))
    if report is None:
        log_student_model(
            run.run_id,
            model,
            shape_of(config),
            item_ids=data.item_ids,
            titles=data.titles,
            item_count=data.item_count.tolist(),
            exclude_seen=config.exclude_seen,
        )
    return progress
