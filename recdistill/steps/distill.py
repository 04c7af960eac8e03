"""``distill``: a student trained with DLLM2Rec (RecSys 2024) from a teacher's outputs."""

from recdistill.config import BaselineConfig, DistillConfig, narrow
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.runs.finished_runs import find_finished, finished_run
from recdistill.runs.run import Kept, StepRun
from recdistill.runs.served_model import register_student
from recdistill.runs.step_runs import step_run
from recdistill.steps.backbone import key_of_baseline
from recdistill.steps.inputs import data_of, frozen_student, imported_teacher, teacher_outputs_of
from recdistill.steps.results import keep_student
from recdistill.steps.teacher import find_teacher
from recdistill.steps.teacher_overlap import overlaps_described, teacher_overlaps
from recdistill.students.student import Student
from recdistill.students.training import Report, check_student, fit_recommender
from recdistill.teachers.outputs import TeacherOutputs
from recdistill.training.device import device_of


def distill(config: DistillConfig, *, report: Report | None = None) -> StepRun:
    """Distil, or find, the student of the options.

    With ``report`` (see `fit_recommender`) it is a trial of a sweep, whose run keeps results alone.
    """
    data = data_of(config)
    check_student(config, data.num_items)
    teacher, outputs = teacher_of(config, data)
    kept: Kept = "all" if report is None else "results"
    with step_run("distill", config, data=data, upstream={"teacher": teacher}, kept=kept) as run:
        if not run.reused:
            train(config, data, outputs, run, report)
    if config.register:
        register_student(run.run_id, config.register)
    return run


def train(
    config: DistillConfig, data: SequenceData, outputs: TeacherOutputs, run: StepRun, report: Report | None
) -> None:
    """Fit the student by the objective of DLLM2Rec, and say what it gained."""
    answers = outputs.answers(config.candidate_topk).shuffled(config.teacher_shuffle, config.seed)
    # Read before the training: a tracking server may be lost by its end.
    found = find_finished(key_of_baseline(narrow(config, BaselineConfig), data.fingerprint))
    baseline = None if found is None else finished_run(found.info.run_id, "backbone")
    device = device_of(config)
    before = None
    if baseline is not None:
        baseline.metrics()
        before = frozen_student(baseline, device) if run.kept == "all" else None
    fitted = fit_recommender(config, data, teacher=answers, recorder=run, report=report)
    keep_student(run, config, data, fitted)
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


def teacher_of(config: DistillConfig, data: SequenceData) -> tuple[StepRun, TeacherOutputs]:
    """The teacher of the options, and its outputs: of a run that is named, found or made, or of files."""
    if config.teacher_files:
        if config.teacher_run_id:
            raise InputError("teacher_files, teacher_run_id: give one of them, not both")
        imported = imported_teacher(config.teacher_files, data)
        return imported.run, imported.outputs
    found = find_teacher(config, config.teacher_run_id, data)
    return found, teacher_outputs_of(found, data)


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
    return f"{text}, undistilled {before:.4f} ({(ndcg / before - 1) if before else 0:+.1%}, one seed)."
