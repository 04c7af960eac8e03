"""Training a teacher within its token budget."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch

from recdistill.config import TeacherConfig, changed
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import TEACHERS, part_errors
from recdistill.students.student import Student
from recdistill.teachers.build import base_llm
from recdistill.teachers.protocol import LearnsContent, Lesson, Teacher
from recdistill.teachers.schedule import curve_of, rate_share
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes
from recdistill.training.fit import Metrics, Progress, TrainingPlan, fit
from recdistill.training.recorder import Recorder


@part_errors()
def train_teacher(
    config: TeacherConfig,
    data: SequenceData,
    backbone: Student,
    *,
    recorder: Recorder,
    processes: Processes | None = None,
) -> tuple[Teacher, Progress]:
    """Build the teacher of the options and train it.

    Args:
        config: its options.
        data: its training samples, and its catalogue.
        backbone: the frozen student whose states it reads; put into evaluation mode and on the processes' device.
        recorder: gets the training curve; its ``work`` holds the checkpoint from which a killed training goes on.
        processes: those that train together, all of which call this; by default one alone, on the options' device.

    Returns the teacher in evaluation mode, and the training's progress (of no step where nothing is trained), whose
    seconds are also those of learning from the items' texts.
    Raises InputError where the parts do not fit, or the loss is not finite.
    """
    processes = processes or Processes(device=device_of(config))
    check_backbone(config, backbone)
    backbone = backbone.to(processes.device).eval()
    llm = base_llm(config, processes)
    torch.manual_seed(config.seed)
    with TEACHERS.calling(config.teacher):
        teacher: Teacher = TEACHERS.get(config.teacher).build(config, llm, backbone, data, processes)
    seconds = 0.0
    if isinstance(teacher, LearnsContent):
        seconds = teacher.learn_content(partial(fit_contrast, config, recorder, processes), recorder.work / "texts")
    lesson = teacher.lesson()
    progress = Progress() if lesson is None else fit_lesson(config, lesson, recorder, processes)
    progress.seconds += seconds
    return teacher, progress


def check_backbone(config: TeacherConfig, backbone: Student) -> None:
    """Raise InputError where the backbone's states depend on later items."""
    if not backbone.causal:
        named = f"backbone_run_id={config.backbone_run_id}" if config.backbone_run_id else "backbone"
        raise InputError(
            f"{named}: is a {type(backbone).__name__.lower()}, whose states look at the whole window; "
            "choose a sasrec or gru4rec run"
        )


def fit_contrast(
    config: TeacherConfig, recorder: Recorder, processes: Processes, lesson: Lesson[Any], token_budget: int
) -> Progress:
    """Fit a lesson about the items' texts within its own budget; its curve is logged as ``contrast/…``."""

    def log(metrics: Metrics, point: int) -> None:
        recorder.log_metrics({f"contrast/{name.partition('/')[2]}": value for name, value in metrics.items()}, point)

    config = changed(config, token_budget=token_budget)
    return fit_lesson(config, lesson, recorder, processes, name="contrast", log=log)


def fit_lesson(
    config: TeacherConfig,
    lesson: Lesson[Any],
    recorder: Recorder,
    processes: Processes,
    *,
    name: str = "teacher",
    log: Callable[[Metrics, int], None] | None = None,
) -> Progress:
    """Fit within the token budget, with Adam and the learning rate of `rate_share`.

    ``name`` is that of the checkpoint and of the bar; ``log`` takes the curve in place of the recorder.
    """
    plan = plan_of(config, lesson, processes, name)
    return fit(plan, recorder.work / f"{name}.safetensors", log or recorder.log_metrics)


def plan_of(config: TeacherConfig, lesson: Lesson[Any], processes: Processes, name: str) -> TrainingPlan[Any]:
    """How `fit_lesson` trains."""
    points, batches_a_point = curve_of(config)

    def of_point(point: int) -> Iterator[Any]:
        return islice(lesson.batches(), point * batches_a_point, (point + 1) * batches_a_point)

    return TrainingPlan(
        parameters=lesson.parameters,
        optimizer=torch.optim.Adam(lesson.groups, weight_decay=config.llm_weight_decay),
        batches=of_point,
        step=lesson.step,
        num_batches=batches_a_point,
        module=lesson.module,
        epochs=points,
        learning_rate=lambda done, total: rate_share(done, total, config.warmup),
        clip=config.gradient_clip,
        accumulation=config.accumulation,
        processes=processes,
        divide=lesson.divide,
        size=lesson.size,
        validate=lesson.validate,
        metric=lesson.metric,
        patience=0,
        label=f"{name}, part",
    )
