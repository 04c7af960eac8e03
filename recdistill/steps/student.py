"""What the steps that train a student share: its shape, its batches, its validation, its results."""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from recdistill.config import StudentConfig, DataConfig, own_fields
from recdistill.data.batches import Batch, batches, seen_items
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.distill.exclusion import Excluded
from recdistill.evaluation.evaluate import Ranked, ScoreFunction, rank_samples
from recdistill.steps.inputs import device_of
from recdistill.steps.results import KEPT, log_results, named
from recdistill.students.build import StudentShape, save_student
from recdistill.students.student import Student
from recdistill.runs.step_runs import StepRun
from recdistill.runs.served_model import log_student_model
from recdistill.training.fit import Metrics, Progress, TrainingPlan, fit

OWN = [name for name in own_fields(StudentConfig, DataConfig) if name != "register"]
STUDENT_SETTINGS = [*OWN, "exclude_seen", "mask_seen"]
STUDENT_CODE = ["data", "students", "distill", "evaluation", "training", "steps/student.py", "steps/results.py"]

Report = Callable[[int, Metrics], None]
# Histories answered one at a time, to time an answer.
LATENCY_HISTORIES = 50


def shape_of(config: StudentConfig) -> StudentShape:
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


def ranked(model: Student, samples: Samples, exclude_seen: bool, device: torch.device, keep: int) -> Ranked:
    """Rank of each sample's target among the whole catalogue, and the ``keep`` best items."""
    model.eval()
    return rank_samples(
        scorer(model, device),
        samples,
        num_items=model.num_items,
        max_length=model.max_length,
        keep=keep,
        exclude_seen=exclude_seen,
    )


def ranks_of(model: Student, samples: Samples, exclude_seen: bool, device: torch.device) -> Tensor:
    """Rank of each sample's target among the whole catalogue, int64 [N]."""
    return ranked(model, samples, exclude_seen, device, keep=0).ranks


@torch.no_grad()
def latency_of(model: Student, samples: Samples, device: torch.device) -> float:
    """Median milliseconds of an answer to one history alone: scores of the catalogue, and the ten best of them."""
    model.eval()
    score, seconds = scorer(model, device), []
    for index in np.linspace(0, len(samples) - 1, LATENCY_HISTORIES).astype(np.int64):
        windows = samples.windows_of([index], model.max_length, model.num_items)
        history, length = (torch.from_numpy(part) for part in windows)
        started = time.perf_counter()
        scores = score(history[:, : int(length)], length, torch.zeros(1, dtype=torch.int64), length - 1)
        # Copying the answer waits for the device.
        scores.topk(min(10, model.num_items)).indices.cpu()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def student_batches(config: StudentConfig, data: SequenceData, causal: bool) -> Callable[[int], Iterator[Batch]]:
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


def masked(config: StudentConfig, data: SequenceData, batch: Batch) -> Excluded | None:
    """What the softmax leaves out: of each sample of a batch the items of its whole history; None for nothing.

    Against the seen ones too, a student learns first that they do not come again, which no ranking without them asks.
    """
    if not (config.mask_seen and config.exclude_seen) or config.base_loss != "ce":
        return None
    return seen_items(data.train, batch.sample, batch.target.device)


def train_student(
    config: StudentConfig,
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
        begin_epoch, memory: see `training.fit.TrainingPlan`.
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

    plan = TrainingPlan(
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
    progress = fit(plan, run.work / "student.safetensors", log)
    run.log_metrics({"best_epoch": progress.best_epoch, "train_seconds": progress.seconds})
    keep_student(config, data, model, run, epoch=progress.epoch, served=report is None)
    return progress


def keep_student(
    config: StudentConfig, data: SequenceData, model: Student, run: StepRun, *, epoch: int = 0, served: bool = True
) -> None:
    """Measure a finished student, on test once, and keep it as the artifact ``student``.

    Args:
        config: options, of which `shape_of` is the student's.
        data: what it is measured on.
        model: the student, on its device.
        run: gets results, ranks and the student.
        epoch: of the results.
        served: also keep the MLflow model, recommendations and figures.
    """
    device = device_of(config)
    test = ranked(model, data.test, config.exclude_seen, device, keep=KEPT if served else 0)
    started = time.perf_counter()
    validation = ranked(model, data.validation, config.exclude_seen, device, keep=0)
    per_thousand = (time.perf_counter() - started) * 1e6 / len(data.validation)
    log_results(run, data, validation, test, epoch, in_full=served)
    speed = {"ms_per_1000_recommendations": per_thousand, "latency_ms": latency_of(model, data.test, device)}
    run.log_metrics(speed)
    # Folded, so that whoever loads the student needs no teacher.
    run.log_folder("student", lambda folder: save_student(folder, model, shape_of(config), fold=True))
    if served:
        log_student_model(
            run.run_id,
            model,
            shape_of(config),
            item_ids=data.item_ids,
            titles=data.titles,
            item_count=data.item_count.tolist(),
            exclude_seen=config.exclude_seen,
        )
