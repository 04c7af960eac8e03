"""``evaluate``: rank again with the model of a finished run."""

from dataclasses import fields, replace
from typing import Any

from recdistill.config import BackboneConfig, DataConfig, DistillConfig, EvaluateConfig, TeacherConfig
from recdistill.steps.inputs import data_of, device_of, frozen_student
from recdistill.steps.llm import load_llm
from recdistill.steps.student import log_results, ranks_of
from recdistill.steps.teacher import find_backbone, scorer_of, tables_of
from recdistill.steps.teacher_scoring import ranks_of_samples
from recdistill.teacher.ranking_teacher import load_ranking_teacher
from recdistill.tracking.runs import StepRun, newest, options_of_run, step_run

OPTIONS: dict[str, type[DataConfig]] = {"backbone": BackboneConfig, "teacher": TeacherConfig, "distill": DistillConfig}
CODE = ["data", "students", "teacher", "evaluation", "steps/evaluate.py", "steps/teacher_scoring.py"]


def evaluate_run(config: EvaluateConfig) -> StepRun:
    """Rank validation and test again, under this step's ``exclude_seen``, on the data that the run was made for."""
    of, step, values = options_of_run(config.run_id or newest("distill"), tuple(OPTIONS))
    options = read_options(OPTIONS[step], values)
    data = data_of(options)
    found = replace(config, run_id=of.run_id)
    with step_run(
        "evaluate", found, data=data, settings=["exclude_seen"], code=CODE, upstream={"evaluated": of}
    ) as run:
        if run.reused:
            return run
        device = device_of(config)
        if isinstance(options, TeacherConfig) and step == "teacher":
            frozen = frozen_student(find_backbone(options, data), device)
            llm = load_llm(options.llm, device)
            model = load_ranking_teacher(of.artifact("teacher"), llm, data.titles, tables_of(frozen)).to(device)
            validation, test, _ = ranks_of_samples(
                scorer_of(replace(options, exclude_seen=config.exclude_seen), model, frozen, data)
            )
        else:
            student = frozen_student(of, device)
            validation, test = (
                ranks_of(student, samples, config.exclude_seen, device) for samples in (data.validation, data.test)
            )
        log_results(run, data, validation, test)
        run.describe(f"The {step} run {of.run_id} ranked again, exclude_seen {str(config.exclude_seen).lower()}.")
    print("\n".join(f"{name} {value:.4f}" for name, value in sorted(run.metrics().items()) if "_at_" in name))
    return run


def read_options(kind: type[DataConfig], values: dict[str, Any]) -> DataConfig:
    """The options that a run kept; those it did not know have their defaults."""
    known = {spec.name for spec in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
