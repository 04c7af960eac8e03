"""``distill``: a student trained with DLLM2Rec (RecSys 2024) from a teacher's outputs."""

from dataclasses import replace
from typing import Any

from recdistill.config import BaselineConfig, DistillConfig, narrow
from recdistill.data.all_interactions import all_as_training
from recdistill.data.item_texts import item_texts
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.runs.finished_runs import find_finished, finished_run
from recdistill.runs.registry import check_registry
from recdistill.runs.run import Kept, StepRun
from recdistill.runs.step_runs import runs_of_their_own, step_run
from recdistill.steps.active_queries import asked_in_rounds, share_of_answers
from recdistill.steps.backbone import key_of_baseline
from recdistill.steps.inputs import data_of, frozen_student, imported_teacher, teacher_outputs_of
from recdistill.steps.refit import refit
from recdistill.steps.registered import registered
from recdistill.steps.student_start import StudentStart, measured, student_start
from recdistill.steps.student_texts import keep_trained
from recdistill.steps.teacher import check_teacher_of, find_teacher
from recdistill.steps.teacher_overlap import overlaps_described, teacher_overlaps
from recdistill.steps.time_budget import within_time
from recdistill.students.student import Student
from recdistill.students.together import Member
from recdistill.students.training import Report, check_student
from recdistill.teachers.outputs import TeacherOutputs, answers_of
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes, join
from recdistill.views.text_teacher import TeacherTable

#: What the key of a refit has where items that are targets of held-out samples alone are candidates of the teacher.
HELD_OUT_TAUGHT = {"candidates of a refit": "also items that are learnt as they were held out"}


def distill(config: DistillConfig, *, report: Report | None = None, member: Member[Any] | None = None) -> StepRun:
    """Distil, or find, the student of the options.

    With ``report`` (see `fit_recommender`) it is a trial of a sweep, whose run keeps results alone; with ``member`` one
    of its final seeds that train together. Started by
    ``accelerate launch`` or torchrun, several processes train together; the main one has the run.
    """
    processes = join(device_of(config))
    processes.from_main(lambda: check_registry(config.register))
    data = processes.main_first(lambda: data_of(config))
    processes.from_main(lambda: check_student(config, data.num_items, processes))
    config = processes.from_main(lambda: within_time(config))
    teacher, outputs = teacher_of(config, data, processes)
    start = replace(processes.main_first(lambda: start_of(config, data, teacher, outputs)), member=member)
    if config.refit:
        run = refitted(config, data, teacher, outputs, start, processes)
    else:
        run = distilled(config, data, teacher, outputs, start, report, processes)
    if config.register and processes.is_main:
        registered(run, config.register)
    return run


def distilled(
    config: DistillConfig,
    data: SequenceData,
    teacher: StepRun,
    outputs: TeacherOutputs,
    start: StudentStart,
    report: Report | None,
    processes: Processes,
) -> StepRun:
    """The run of the student that the options name, found or trained."""
    kept: Kept = "all" if report is None else "results"
    upstream = {"teacher": teacher} | start.upstream
    opened = step_run("distill", config, data=data, upstream=upstream, kept=kept, contents=start.contents)
    with processes.main_enters(opened) as run:
        if not run.reused and processes.is_main:
            train(config, data, outputs, start, run, report, processes)
        elif not run.reused:
            start.help_fit(config, data, run, processes, answers_of(config, outputs, data))
    return run


def refitted(
    config: DistillConfig,
    data: SequenceData,
    teacher: StepRun,
    outputs: TeacherOutputs,
    start: StudentStart,
    processes: Processes,
) -> StepRun:
    """The student trained again on all interactions; the run that is refitted is found or made first."""
    with runs_of_their_own():
        first = distill(processes.from_main(lambda: measured(config)))
    # What is held out is learnt, too: such items are candidates like others.
    answers = answers_of(config, outputs, all_as_training(data))
    upstream, terms, start = {"teacher": teacher}, outputs.manifest.terms, start_of_refit(config, data, start)
    return refit(
        "distill", config, data, first, start, teacher=answers, upstream=upstream, terms=terms, processes=processes
    )


def train(
    config: DistillConfig,
    data: SequenceData,
    outputs: TeacherOutputs,
    start: StudentStart,
    run: StepRun,
    report: Report | None,
    processes: Processes,
) -> None:
    """Fit the student by the objective of DLLM2Rec, and say what it gained."""
    answers = answers_of(config, outputs, data)
    # Read before the training: a tracking server may be lost by its end.
    baseline = twin_of(config, data, start)
    device = processes.device
    before = None
    if baseline is not None:
        baseline.metrics()
        before = frozen_student(baseline, device) if run.kept == "all" else None
    fitted, vectors = start.fit(config, data, run, report, answers, processes)
    keep_trained(run, config, data, fitted, start.texts, vectors, outputs.manifest.terms)
    if baseline is not None:
        run.tag("twin_run_id", baseline.run_id)
    run.log_metrics({"teacher_covered_share": outputs.covered_share})
    assert fitted.progress is not None
    text = described(config, data, outputs, run, fitted.progress.best_epoch, baseline)
    if run.kept == "all":
        assert isinstance(fitted.model, Student)
        overlaps = teacher_overlaps(fitted.model, before, data, outputs, config.exclude_seen, device)
        run.log_metrics(overlaps)
        text += overlaps_described(overlaps)
    run.describe(text)


def teacher_of(config: DistillConfig, data: SequenceData, processes: Processes) -> tuple[StepRun, TeacherOutputs]:
    """The teacher of the options, and its outputs: of a run that is named, found or made, or of files."""
    if config.rounds > 1 and processes.count > 1:
        raise InputError(f"rounds={config.rounds}: asks in one process; start distill by itself, or leave rounds out")
    if config.teacher_files:
        processes.from_main(lambda: check_teacher_of(config, data))
        imported = processes.main_first(lambda: imported_teacher(config.teacher_files, data))
        return imported.run, imported.outputs
    found = find_teacher(config, config.teacher_run_id, data)
    if config.query_share < 1:
        outputs = processes.from_main(
            lambda: share_of_answers(config, data, found, teacher_outputs_of(found, data), distill)
        )
        return found, outputs
    asked = found
    if config.rounds > 1:
        asked = asked_in_rounds(config, data, found, distill)
    return asked, processes.main_first(lambda: teacher_outputs_of(asked, data))


def start_of(config: DistillConfig, data: SequenceData, teacher: StepRun, outputs: TeacherOutputs) -> StudentStart:
    """What the training starts from, with the teacher's vectors of the items' texts where ``views`` has the teacher."""
    if not config.starts_from_teacher:
        return student_start(config, data)
    texts = item_texts(data.titles, data.item_columns, config.item_text, config.text_template)
    return student_start(config, data, TeacherTable.of_outputs(outputs, texts, {"teacher": teacher.key}))


def start_of_refit(config: DistillConfig, data: SequenceData, start: StudentStart) -> StudentStart:
    """The same start, with what the key of a refit has beside it: whether items are learnt as they were held out.

    Before, such items were no candidates of the teacher, see `answers_of`.
    """
    more = data.learnt(config.exclude_seen) != all_as_training(data).learnt(config.exclude_seen)
    if not config.leaves_new_out or not more.any():
        return start
    return replace(start, learnt={**start.learnt, **HELD_OUT_TAUGHT})


def twin_of(config: DistillConfig, data: SequenceData, start: StudentStart) -> StepRun | None:
    """The finished undistilled run of the same options, what its training starts from included; None for none.

    A student that starts from its teacher's vectors has none.
    """
    if config.starts_from_teacher:
        return None
    key = key_of_baseline(narrow(config, BaselineConfig), data.fingerprint, start)
    found = find_finished(key, start.upstream)
    return None if found is None else finished_run(found.info.run_id, "backbone")


def described(
    config: DistillConfig,
    data: SequenceData,
    outputs: TeacherOutputs,
    run: StepRun,
    best_epoch: int,
    baseline: StepRun | None,
) -> str:
    """The run's description: what was learnt from whom, and what it gained."""
    ndcg = run.metrics()["test/ndcg_at_10"]
    text = (
        f"{config.student} on {data.name} ({data.split}), distilled from {outputs.manifest.llm}, whose rankings cover "
        f"{outputs.covered_share:.0%} of {len(data.train):,} training samples: lam {config.lam:g}, alpha "
        f"{config.alpha:g}, ed_weight {config.ed_weight:g}, temperature {config.temperature:g}, "
        f"{config.selection_policy} samples. Best epoch {best_epoch + 1}, test NDCG@10 {ndcg:.4f}"
    )
    if baseline is None:
        return f"{text}; no undistilled run of the same settings to compare with."
    before = baseline.metrics()["test/ndcg_at_10"]
    # The undistilled student has no robust term, whatever alpha is.
    of_dro = ", of distillation and DRO together" if config.alpha else ""
    return f"{text}, undistilled {before:.4f} ({(ndcg / before - 1) if before else 0:+.1%}{of_dro}, one seed)."
