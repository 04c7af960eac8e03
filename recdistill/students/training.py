"""Fitting a recommender: by gradient (batch, scores, objective, step; with checkpoints) or in closed form."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recdistill.config.distill import DistillConfig
from recdistill.config.student import StudentConfig
from recdistill.data.batches import Batch
from recdistill.data.notices import notice
from recdistill.data.sequences import SequenceData
from recdistill.distillation.objective import build_objective, settings_of
from recdistill.distillation.policies.custom import check_policy_file
from recdistill.distillation.projection import FactoredTable, factored
from recdistill.distillation.settings import SAMPLED
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.evaluation.part_metrics import WARM_COST
from recdistill.registry import LOSS_TERMS, STUDENTS, part_errors
from recdistill.students.build import StudentShape, build_student, shape_of
from recdistill.students.calibration import warm_cost
from recdistill.students.earlier import EarlierStudent
from recdistill.students.loss_path import loss_path, say_long_validation, say_what_would_pay
from recdistill.students.measure import KEPT, Fitted, measure, metrics_of, ranks_of
from recdistill.students.process_random import ProcessRandom
from recdistill.students.recommender import ClosedForm
from recdistill.students.selection import Selection
from recdistill.students.step import check_divisible, loss_step, seen_mask, student_batches
from recdistill.students.student import Student
from recdistill.students.text_vectors import TextVectors
from recdistill.students.together import Member
from recdistill.training.device import device_of
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.fit import Metrics, TrainingPlan, fit
from recdistill.training.recorder import Recorder
from recdistill.training.row_adam import RowAdam
from recdistill.training.schedule import rate_share

__all__ = [
    "Fitted",
    "Report",
    "check_student",
    "fit_recommender",
    "help_fit",
    "loss_step",
    "seen_mask",
    "student_batches",
]

Report = Callable[[int, Metrics], None]
# Reading the item embeddings of a large LLM is most of a step: above this width in bfloat16, half the bytes.
WIDE = 1024
SELECTION = "selection"
CHECKPOINT = "student.safetensors"


def check_student(config: StudentConfig, num_items: int, processes: Processes = ALONE) -> None:
    """Raise InputError, before any work, where the recommender of the options cannot be fitted to so many items.

    Nor where it cannot be by so many processes.
    """
    if processes.count > 1:
        check_divisible(config)
    shape = shape_of(config)
    kind = STUDENTS.get(config.student)
    check_kind(config.student, kind)
    with STUDENTS.calling(config.student):
        kind.check(num_items, shape.own())
        if issubclass(kind, Student):
            # Over a catalogue of one item: what is checked are its sizes.
            with torch.random.fork_rng(devices=[]):
                build_student(shape, num_items=1)
    if isinstance(config, DistillConfig):
        settings_of(config)
        if config.selection_policy == "custom":
            check_policy_file(config.value("policy_file"), num_items, config.candidate_topk)
    device_of(config)


def check_kind(student: str, kind: type) -> None:
    """Raise InputError where a student's class is not what its registration says, or does not say if it is causal."""
    by_gradient = bool(STUDENTS.declaration(student).about.get("gradient"))
    base = Student if by_gradient else ClosedForm
    if not issubclass(kind, base):
        raise InputError(
            f"student {student!r}: is registered with gradient={by_gradient}, but is no {base.__name__}; derive it "
            f"from that, or register it with gradient={not by_gradient}"
        )
    if by_gradient and not isinstance(getattr(kind, "causal", None), bool):
        raise InputError(f"student {student!r}: does not say whether it is causal; write causal = True or False in it")


@part_errors()
def fit_recommender(
    config: StudentConfig,
    data: SequenceData,
    *,
    teacher: TeacherAnswers | None = None,
    recorder: Recorder,
    report: Report | None = None,
    texts: TextVectors | None = None,
    earlier: EarlierStudent | None = None,
    processes: Processes | None = None,
    member: Member[Any] | None = None,
) -> Fitted:
    """Fit the recommender of the options, and measure it, on test once.

    Args:
        config: options; those of ``distill`` with a ``teacher`` distil it, else it learns by its base loss alone.
        data: what is learnt, and what it is measured on.
        teacher: the teacher's answers for the training samples.
        recorder: of this training alone: gets the metrics of each epoch and which samples were selected, and holds
            the checkpoint that a killed training goes on from.
        report: called with each epoch and its metrics; what it raises ends the training. A trial of a sweep
            reports; the items that it recommends are not kept.
        texts: vectors of the items' texts, for ``item_init=views``.
        earlier: the student that the training starts from; None for fresh parameters.
        processes: those that train together, of which this is the main one; the others call `help_fit`. By default
            one alone, on the options' device.
        member: this training among those that train together, see `students.together`; None for one alone.

    Raises:
        InputError: texts are missing or not asked for, the student cannot be built, the teacher does not suit it, or
            the loss is not finite.
    """
    processes = processes or Processes(device=device_of(config))
    keep = KEPT if report is None else 0
    kind, shape = STUDENTS.get(config.student), shape_of(config)
    if config.refit:
        raise InputError("refit=true: measures nothing; train without it, or use the steps backbone and distill")
    if config.init_from and earlier is None:
        raise InputError(f"init_from={config.init_from}: is of the steps backbone and distill; leave it out")
    if config.starts_from_texts != (texts is not None):
        raise InputError(f"item_init={config.item_init}: vectors of the items' texts are for item_init=views alone")
    if issubclass(kind, ClosedForm):
        return fit_closed_form(config, data, kind, shape, keep)
    taught = taught_by(config, teacher)
    return train_student(config, data, shape, taught, recorder, report, keep, texts, earlier, processes, member)


@part_errors()
def help_fit(
    config: StudentConfig,
    data: SequenceData,
    *,
    teacher: TeacherAnswers | None = None,
    recorder: Recorder,
    texts: TextVectors | None = None,
    earlier: EarlierStudent | None = None,
    processes: Processes,
) -> None:
    """What the other processes do while the main one calls `fit_recommender`: their part of each batch.

    Arguments are those of `fit_recommender`; of the recorder only the folder is read.
    """
    if issubclass(STUDENTS.get(config.student), ClosedForm):
        return
    taught, shape = taught_by(config, teacher), shape_of(config)
    _, plan = student_plan(config, data, shape, taught, recorder, texts, earlier, processes)
    fit(plan, recorder.work / CHECKPOINT, unlogged)


def unlogged(metrics: Metrics, epoch: int) -> None:
    """The log of a process that is not the main one."""


def taught_by(config: StudentConfig, teacher: TeacherAnswers | None) -> TeacherAnswers | None:
    """The teacher's answers that a training of these options reads; None where it reads none."""
    taught = teacher if isinstance(config, DistillConfig) else None
    if taught is not None and not config.parts_in_use_of(LOSS_TERMS):
        # Only loss terms read the teacher's states of the samples, which are many bytes a batch.
        taught = replace(taught, sequence_embedding=None)
    return taught


def fit_closed_form(
    config: StudentConfig, data: SequenceData, kind: type[ClosedForm], shape: StudentShape, keep: int
) -> Fitted:
    """Compute the recommender from the training interactions, and measure it."""
    device = device_of(config)
    started = time.perf_counter()
    with STUDENTS.calling(config.student):
        model = kind.fit(data, shape.own(), config.seed).to(device).eval()
    measured = {"train_seconds": time.perf_counter() - started}
    shape = replace(shape, max_length=model.max_length)
    return measure(model, shape, data, device, exclude_seen=config.exclude_seen, keep=keep, measured=measured)


def train_student(
    config: StudentConfig,
    data: SequenceData,
    shape: StudentShape,
    teacher: TeacherAnswers | None,
    recorder: Recorder,
    report: Report | None,
    keep: int,
    texts: TextVectors | None,
    earlier: EarlierStudent | None,
    processes: Processes,
    member: Member[Any] | None,
) -> Fitted:
    """Train a student by validation NDCG@10, distilled where there is a teacher, and measure it."""
    model, plan = student_plan(config, data, shape, teacher, recorder, texts, earlier, processes, member)

    def log(metrics: Metrics, epoch: int) -> None:
        recorder.log_metrics(metrics, epoch)
        if report is not None:
            report(epoch, metrics)

    progress = fit(plan, recorder.work / CHECKPOINT, log)
    measured = {"best_epoch": progress.best_epoch, "train_seconds": progress.seconds}
    fitted = measure(
        model,
        shape,
        data,
        processes.device,
        exclude_seen=config.exclude_seen,
        keep=keep,
        progress=progress,
        measured=measured,
    )
    cost = warm_cost(model, data, config.exclude_seen, processes.device, config.seed)
    return fitted if cost is None else replace(fitted, measured=fitted.measured | {WARM_COST: cost})


def student_plan(
    config: StudentConfig,
    data: SequenceData,
    shape: StudentShape,
    teacher: TeacherAnswers | None,
    recorder: Recorder,
    texts: TextVectors | None = None,
    earlier: EarlierStudent | None = None,
    processes: Processes | None = None,
    member: Member[Any] | None = None,
) -> tuple[Student, TrainingPlan[Batch]]:
    """A student with fresh parameters, or those of an earlier one, on its device, and the plan of its training.

    Raises InputError where several processes cannot divide its batches.
    """
    processes = processes or Processes(device=device_of(config))
    if processes.count > 1:
        check_divisible(config)
    device = processes.device
    learnt = torch.as_tensor(data.learnt(config.exclude_seen))
    torch.manual_seed(config.seed)
    texts = None if texts is None else replace(texts, trained=learnt)
    model = initial_student(config, shape, data.num_items, teacher, texts)
    if earlier is not None:
        earlier.start(model)
    model = model.to(device)
    selection = selection_of(config, data, model, teacher, recorder, processes)
    # Built after the student: it has parameters of its own where a loss term projects the states.
    objective = build_objective(
        config, torch.as_tensor(data.item_count), state_size=model.state_size, teacher=teacher, learnt=learnt
    ).to(device)
    path = loss_path(config, model, objective, teacher is not None)
    if processes.is_main:
        recorder.tag("loss_path", path)
        say_what_would_pay(config, path, data.num_items)
        say_long_validation(config, len(data.validation), data.num_items)
    memory = {} if selection is None else selection.memory
    validation = data.validation.at_most(config.validation_samples or len(data.validation), config.seed)
    random = ProcessRandom(processes, config.seed, memory)
    trained = nn.ModuleDict({"student": model, "extra": objective})
    optimizer = optimizer_of(config, trained)
    plan = TrainingPlan(
        parameters=trained_tensors(trained),
        optimizer=optimizer,
        # Several processes divide a batch on the CPU.
        batches=student_batches(config, data, model.causal, device if processes.count == 1 else "cpu"),
        step=loss_step(
            config, data, model, objective, selection, device, random, None if member is None else member.losses
        ),
        num_batches=-(-data.num_trainable(config.exclude_seen) // config.batch_size),
        module=trained,
        epochs=config.epochs,
        validate=lambda: metrics_of("val", ranks_of(model, validation, config.exclude_seen, device, processes)),
        patience=config.patience,
        least_epochs=config.least_epochs,
        smoothing=config.smoothing,
        ema_decay=config.ema_decay,
        learning_rate=learning_rate_of(config),
        begin_epoch=None if selection is None else selection.begin_epoch,
        memory=memory,
        processes=processes,
        divide=Batch.part,
        row_sparse=row_sparse(config, model),
        same_random=True,
        label=f"{config.student} epoch",
    )
    return model, plan


def row_sparse(config: StudentConfig, model: Student) -> list[Tensor]:
    """The tables of items whose gradient is sparse: under drawn negatives, of input and of an own output and bias."""
    if config.base_loss not in SAMPLED:
        return []
    own = [] if model.output is None else [model.output.weight, model.output.bias]
    return [model.items.embedding.weight, *own]


def optimizer_of(config: StudentConfig, trained: nn.Module) -> torch.optim.Optimizer:
    """Adam; under drawn negatives, where only some rows of the item table get a gradient, of those rows alone."""
    if config.base_loss in SAMPLED:
        return RowAdam(trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.Adam(trained.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """All that training changes, by name: the parameters, and the buffers that are saved, as running statistics."""
    parameters = dict(module.named_parameters())
    saved = module.state_dict(keep_vars=True)
    return parameters | {name: one for name, one in module.named_buffers() if name in saved}


def learning_rate_of(config: StudentConfig) -> Callable[[int, int], float] | None:
    """The share of the learning rate at a step, from (steps done, steps in all); None where it is always 1."""
    if config.schedule == "constant" and not config.rate_warmup:
        return None
    return partial(rate_share, config.schedule, warmup=config.rate_warmup, floor=config.rate_floor)


def initial_student(
    config: StudentConfig,
    shape: StudentShape,
    num_items: int,
    teacher: TeacherAnswers | None,
    texts: TextVectors | None = None,
) -> Student:
    """A student with fresh parameters, the teacher's item embeddings injected where there is a teacher.

    Its own embeddings start from ``texts`` where there are some.
    """
    if teacher is None or not isinstance(config, DistillConfig):
        return build_student(shape, num_items, texts=texts)
    table, rank = teacher.item_embedding, config.ed_rank if config.ed_weight else 0
    if rank >= min(table.shape):
        raise InputError(
            f"ed_rank={rank}: the teacher's table is {table.shape[0]:,} x {table.shape[1]:,}; give less, or 0 for all"
        )
    embedding = factored(table, rank) if rank else table
    if isinstance(embedding, FactoredTable):
        notice(f"ed_rank={rank}: leaves out {embedding.error:.1%} of the length of the teacher's item embeddings")
    wide = (rank or table.shape[1]) > WIDE
    return build_student(shape, num_items, embedding, config.ed_weight, project_in_bf16=wide, texts=texts)


def selection_of(
    config: StudentConfig,
    data: SequenceData,
    model: Student,
    teacher: TeacherAnswers | None,
    recorder: Recorder,
    processes: Processes = ALONE,
) -> Selection | None:
    """The selection of the samples that are distilled; None without a teacher.

    Selections of a training that was killed are kept with the one that goes on from it.
    """
    if teacher is None or not isinstance(config, DistillConfig):
        return None
    for path in sorted((recorder.work / SELECTION).glob("*.safetensors")) if processes.is_main else ():
        recorder.log_file(path, SELECTION)
    return Selection(config, data, model, teacher, partial(keep_selection, recorder), processes)


def keep_selection(recorder: Recorder, epoch: int, mask: Tensor) -> None:
    """Keep which samples were selected, as ``selection/epoch-012.safetensors``, and beside the checkpoint."""
    path: Path = recorder.work / SELECTION / f"epoch-{epoch:03d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"sample": mask.nonzero().squeeze(1)}, path)
    recorder.log_file(path, SELECTION)
