"""``evaluate``: rank again with the model of a finished run."""

from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from recdistill.config import BackboneConfig, DataConfig, DistillConfig, EvaluateConfig, TeacherConfig
from recdistill.data.sequences import SequenceData
from recdistill.steps.inputs import data_of, device_of, frozen_student
from recdistill.steps.llm import load_llm
from recdistill.steps.student import log_results, ranks_of
from recdistill.steps.teacher import scorer_of, tables_of
from recdistill.steps.teacher_scoring import ranks_of_samples
from recdistill.teacher.ranking_teacher import load_ranking_teacher
from recdistill.tracking.runs import StepRun, finished_run, linked_run, newest, options_of_run, step_run

OPTIONS: dict[str, type[DataConfig]] = {"backbone": BackboneConfig, "teacher": TeacherConfig, "distill": DistillConfig}
CODE = ["data", "students", "teacher", "evaluation", "steps/evaluate.py", "steps/teacher_scoring.py"]


def evaluate_run(config: EvaluateConfig) -> StepRun:
    """Rank validation and test again, under this step's ``exclude_seen``, on the data that the run was made for."""
    of, step, values = options_of_run(config.run_id or newest("distill"), tuple(OPTIONS))
    options = read_options(OPTIONS[step], values)
    data = data_of(options)
    finished_run(of.run_id, step, data.fingerprint, option="run_id")
    found = replace(config, run_id=of.run_id)
    with step_run(
        "evaluate", found, data=data, settings=["exclude_seen"], code=CODE, upstream={"evaluated": of}
    ) as run:
        if not run.reused:
            log_results(run, data, *ranks_again(config, of, step, options, data))
            run.describe(f"The {step} run {of.run_id} ranked again, exclude_seen {str(config.exclude_seen).lower()}.")
    print("\n".join(f"{name} {value:.4f}" for name, value in sorted(run.metrics().items()) if "_at_" in name))
    return run


def ranks_again(
    config: EvaluateConfig, of: StepRun, step: str, options: DataConfig, data: SequenceData
) -> tuple[Tensor, Tensor]:
    """Ranks of the validation and of the test samples, int64 [N] each, by the model of a finished run."""
    device = device_of(config)
    if isinstance(options, TeacherConfig) and step == "teacher":
        frozen = frozen_student(linked_run(of, "backbone"), device)
        llm = load_llm(options.llm, device)
        model = load_ranking_teacher(of.artifact("teacher"), llm, data.titles, tables_of(frozen)).to(device)
        scorer = scorer_of(replace(options, exclude_seen=config.exclude_seen), model, frozen, data)
        return ranks_of_samples(scorer)[:2]
    student = frozen_student(of, device)
    validation, test = (
        ranks_of(student, samples, config.exclude_seen, device) for samples in (data.validation, data.test)
    )
    return validation, test


def read_options(kind: type[DataConfig], values: dict[str, Any]) -> DataConfig:
    """The options that a run kept; those it did not know have their defaults."""
    known = {spec.name for spec in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
