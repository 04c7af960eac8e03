"""``evaluate``: rank again with the model of a finished run."""

from dataclasses import fields, replace
from typing import Any

from recdistill.config import StudentConfig, DataConfig, DistillConfig, EvaluateConfig, TeacherConfig
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.evaluate import Ranked
from recdistill.steps.generative_scoring import GenerativeScorer, generative_scorer
from recdistill.steps.inputs import data_of, device_of, frozen_student
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.steps.results import KEPT, log_results
from recdistill.steps.student import ranked
from recdistill.steps.teacher import scorer_of, tables_of
from recdistill.steps.teacher_generative import answers_judged, log_answers
from recdistill.steps.teaching import Scoring
from recdistill.students.student import Student
from recdistill.teachers.generative.model import load_generative_model
from recdistill.teachers.ranking.model import load_ranking_model
from recdistill.runs.step_runs import StepRun, finished_run, linked_run, newest, options_of_run, step_run

OPTIONS: dict[str, type[DataConfig]] = {"backbone": StudentConfig, "teacher": TeacherConfig, "distill": DistillConfig}
CODE = ["data", "students", "teacher", "evaluation"]
CODE += ["steps/evaluate.py", "steps/results.py", "steps/teaching.py", "steps/teacher_scoring.py"]
CODE += ["steps/teacher_generative.py", "steps/generative_scoring.py"]


def evaluate_run(config: EvaluateConfig) -> StepRun:
    """Rank validation and test again, under this step's ``exclude_seen``, on the data that the run was made for."""
    of, step, values = options_of_run(config.run_id or newest("distill"), tuple(OPTIONS))
    options = read_options(OPTIONS[step], values)
    data = data_of(options)
    finished_run(of.run_id, step, data.fingerprint, option="run_id")
    found = replace(config, run_id=of.run_id)
    with step_run(
        "evaluate", found, data=data, settings=["exclude_seen", "answer"], code=CODE, upstream={"evaluated": of}
    ) as run:
        if not run.reused:
            model = model_again(config, of, step, options, data)
            log_results(run, data, *ranks_of(config, model, data))
            if isinstance(model, GenerativeScorer):
                log_answers(run, answers_judged(model))
            run.describe(f"The {step} run {of.run_id} ranked again, exclude_seen {str(config.exclude_seen).lower()}.")
    shown = {name: value for name, value in run.metrics().items() if "_at_" in name or "valid_ratio" in name}
    print("\n".join(f"{name} {value:.4f}" for name, value in sorted(shown.items())))
    return run


def model_again(
    config: EvaluateConfig, of: StepRun, step: str, options: DataConfig, data: SequenceData
) -> Student | Scoring:
    """The student of a finished run, or its teacher beside its backbone. Raises InputError."""
    device = device_of(config)
    teacher = options.teacher if isinstance(options, TeacherConfig) and step == "teacher" else ""
    if config.answer != "as-trained" and teacher != "generative":
        raise InputError(f"answer={config.answer}: run {of.run_id} is no generative teacher; leave it out")
    if not isinstance(options, TeacherConfig) or not teacher:
        return frozen_student(of, device)
    frozen, folder = frozen_student(linked_run(of, "backbone"), device), of.artifact("teacher")
    options = replace(options, exclude_seen=config.exclude_seen)
    llm = load_llm(options.llm, device, causal_lm=teacher == "generative", load_in_4bit=options.load_in_4bit)
    if teacher == "generative":
        answer = options.answer if config.answer == "as-trained" else config.answer
        writer = load_generative_model(folder, llm, data.titles, frozen.item_table().detach())
        return generative_scorer(replace(options, answer=answer), writer.to(device), frozen, data)
    ranker = load_ranking_model(folder, llm, data.titles, tables_of(frozen))
    return scorer_of(options, ranker.to(device), frozen, data)


def ranks_of(config: EvaluateConfig, model: Student | Scoring, data: SequenceData) -> tuple[Ranked, Ranked]:
    """What a model makes of the validation and of the test samples."""
    if not isinstance(model, Student):
        return model.ranks()[:2]
    validation, test = (
        ranked(model, samples, config.exclude_seen, device_of(config), keep=KEPT)
        for samples in (data.validation, data.test)
    )
    return validation, test


def read_options(kind: type[DataConfig], values: dict[str, Any]) -> DataConfig:
    """The options that a run kept; those it did not know have their defaults."""
    known = {spec.name for spec in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
