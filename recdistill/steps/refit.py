"""``refit=true``: a student to serve, trained on all interactions for the epochs that validation chose before."""

from collections.abc import Mapping
from typing import Any

from recdistill.config import StudentConfig
from recdistill.data.all_interactions import all_as_training
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.runs.run import REFIT, StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.results import save_student
from recdistill.steps.student_start import StudentStart
from recdistill.steps.student_texts import as_tensors, served_student
from recdistill.students.refit import refit_recommender
from recdistill.training.distributed import Processes


def refit(
    step: str,
    config: StudentConfig,
    data: SequenceData,
    first: StepRun,
    start: StudentStart,
    *,
    teacher: TeacherAnswers | None = None,
    upstream: Mapping[str, StepRun] | None = None,
    terms: str = "",
    processes: Processes,
) -> StepRun:
    """Train again on all interactions, or find the run that did.

    Args:
        step: ``backbone`` or ``distill``.
        config: with ``refit``.
        data: with its split, of which nothing is left to measure on.
        first: the finished run of the same options without ``refit``.
        start: what training starts from.
        teacher: its answers for the training samples, where the student is distilled.
        upstream: further runs that it starts from.
        terms: of the language models that it is made with.
        processes: that train together; the main one has the run.
    """
    before: dict[str, Any] = {**(upstream or {}), **start.upstream, "refitted": first}
    epochs = processes.from_main(lambda: int(first.metrics().get("best_epoch", 0)) + 1)
    opened = step_run(step, config, data=data, upstream=before, contents=start.contents)
    with processes.main_enters(opened) as run:
        if not run.reused:
            everything = all_as_training(data)
            if processes.is_main:
                start.say_of_earlier(everything)
            vectors = processes.main_first(lambda: start.vectors(config, everything, run.work))
            model, shape = refit_recommender(
                config,
                everything,
                epochs,
                recorder=run,
                teacher=teacher,
                texts=as_tensors(vectors, everything),
                earlier=start.earlier,
                processes=processes,
            )
            if not processes.is_main:
                return run
            served, beside, terms = served_student(model, shape, start.texts, vectors, terms)
            save_student(run, everything, served, shape, config.exclude_seen, beside, terms, first.run_id)
            run.log_metrics({"refit/epochs": epochs, "refit/samples": len(everything.train)})
            run.tag(REFIT, "true")
            run.describe(
                f"{config.student} on {data.name}, refitted for serving: trained on all {len(everything.train):,} "
                f"interactions, validation and test included, for {epochs} epochs as the run {first.run_id} chose. "
                "It is measured on nothing; that run's test metrics are what is known of it."
            )
    return run
