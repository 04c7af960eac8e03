"""A student trained again on all interactions, for as many epochs as validation chose before (``refit``)."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from recdistill.config.student import StudentConfig
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.registry import STUDENTS, part_errors
from recdistill.students.earlier import EarlierStudent
from recdistill.students.recommender import ClosedForm, Recommender
from recdistill.students.shape import StudentShape, shape_of
from recdistill.students.text_vectors import TextVectors
from recdistill.students.training import CHECKPOINT, student_plan, taught_by
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes
from recdistill.training.fit import TrainingPlan, fit
from recdistill.training.recorder import Recorder


@part_errors()
def refit_recommender(
    config: StudentConfig,
    data: SequenceData,
    epochs: int,
    *,
    recorder: Recorder,
    teacher: TeacherAnswers | None = None,
    texts: TextVectors | None = None,
    earlier: EarlierStudent | None = None,
    processes: Processes | None = None,
) -> tuple[Recommender, StudentShape]:
    """The recommender of all samples of ``data.train``, and its shape; nothing is measured.

    Args:
        config: options of the training that is repeated.
        data: of `all_interactions.all_as_training`.
        epochs: how many, at least 1; the learning rate goes as in their training, whose plan may have been longer.
        recorder: as of `training.fit_recommender`.
        teacher: answers for the first of the samples; the others are not distilled.
        texts, earlier: as of `training.fit_recommender`.
        processes: that train together, all of which call this; by default one alone, on the options' device.

    Raises:
        InputError: as `training.fit_recommender`.
    """
    kind, shape = STUDENTS.get(config.student), shape_of(config)
    if issubclass(kind, ClosedForm):
        with STUDENTS.calling(config.student):
            fitted = kind.fit(data, shape.own(), config.seed).to(device_of(config)).eval()
        return fitted, replace(shape, max_length=fitted.max_length)
    taught = taught_by(config, teacher)
    taught = None if taught is None else covering(taught, len(data.train))
    model, plan = student_plan(config, data, shape, taught, recorder, texts, earlier, processes)
    fit(of_epochs(plan, epochs), recorder.work / CHECKPOINT, recorder.log_metrics)
    return model, shape


def of_epochs(plan: TrainingPlan, epochs: int) -> TrainingPlan:  # type: ignore[type-arg]
    """The plan's first epochs, all of them trained, with the learning rates that they had in it, and no validation."""
    rate, planned = plan.learning_rate, plan.epochs
    if rate is None:
        return replace(plan, epochs=epochs, validate=None, patience=0)

    def rate_of(step: int, steps: int) -> float:
        return rate(step, round(steps * planned / epochs))

    return replace(plan, epochs=epochs, validate=None, patience=0, learning_rate=rate_of)


def covering(teacher: TeacherAnswers, samples: int) -> TeacherAnswers:
    """The same answers where more samples, which the teacher has not scored, stand behind those that it knows."""
    more = samples - len(teacher.covered)
    return replace(
        teacher,
        covered=torch.cat([teacher.covered, teacher.covered.new_zeros(more)]),
        ranking=F.pad(teacher.ranking, (0, 0, 0, more)),
        distance=F.pad(teacher.distance, (0, 0, 0, more)),
        covered_share=teacher.covered_share * len(teacher.covered) / samples,
    )
