"""``evaluate``: rank again with the model of a finished run."""

from recdistill.config import STEPS, DataConfig, EvaluateConfig, StudentConfig, TeacherConfig, changed, config_of
from recdistill.config.lineage import metric_contents
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.runs.datasets import measured_on
from recdistill.runs.finished_runs import finished_run, linked_run, newest
from recdistill.runs.logged_models import model_id_of_run
from recdistill.runs.measured_again import EVALUATED
from recdistill.runs.plugins_of_runs import options_with_plugins, same_code
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.inputs import data_of, fitted_recommender, frozen_student, kept_teacher
from recdistill.steps.results import log_results
from recdistill.steps.teacher import log_answers
from recdistill.students.measure import KEPT, ranked
from recdistill.training.device import device_of

AS_TRAINED = "as-trained"


def evaluate(config: EvaluateConfig) -> StepRun:
    """Rank validation and test again, under this step's ``exclude_seen``, on the data that the run was made for."""
    of, step, values = options_with_plugins(config.run_id or newest("distill"), EVALUATED)
    options = config_of(STEPS[step], values)
    assert isinstance(options, DataConfig)
    if isinstance(options, StudentConfig) and options.refit:
        raise InputError(f"run_id={of.run_id}: was trained on all interactions (refit); evaluate the run it refits")
    if config.answer != AS_TRAINED and (step != "teacher" or "answer" not in options.values()):
        raise InputError(f"answer={config.answer}: run {of.run_id} is no generative teacher; leave it out")
    data = data_of(options)
    finished_run(of.run_id, step, data.fingerprint, option="run_id")
    found = changed(config, run_id=of.run_id)
    contents = metric_contents() | same_code(of)
    with step_run("evaluate", found, data=data, upstream={"evaluated": of}, contents=contents) as run:
        if not run.reused:
            if step == "teacher":
                assert isinstance(options, TeacherConfig)
                rank_teacher(config, of, options, data, run)
            else:
                rank_student(config, of, options, data, run)
            run.describe(f"The {step} run {of.run_id} ranked again, exclude_seen {str(config.exclude_seen).lower()}.")
    shown = {name: value for name, value in run.metrics().items() if "_at_" in name or "valid_ratio" in name}
    print("\n".join(f"{name} {value:.4f}" for name, value in sorted(shown.items())))
    return run


def rank_student(config: EvaluateConfig, of: StepRun, options: DataConfig, data: SequenceData, run: StepRun) -> None:
    """Log what the recommender of a finished run ranks, as metrics of its model, too."""
    device = device_of(config)
    model = fitted_recommender(of, device)
    validation, test = (
        ranked(model, samples, config.exclude_seen, device, keep=KEPT, among=new)
        for samples, new in ((data.validation, data.new_validation), (data.test, data.new_test))
    )
    as_trained = config.exclude_seen == options.exclude_seen
    seen, model_id = config.exclude_seen, model_id_of_run(of.run_id)
    log_results(run, data, validation, test, exclude_seen=seen, model=model_id, as_trained=as_trained)


def rank_teacher(config: EvaluateConfig, of: StepRun, options: TeacherConfig, data: SequenceData, run: StepRun) -> None:
    """Log what the teacher of a finished run ranks and, where it writes, answers, as metrics of its model, too."""
    as_trained = config.exclude_seen == options.exclude_seen and config.answer == AS_TRAINED
    options = changed(options, exclude_seen=config.exclude_seen)
    if config.answer != AS_TRAINED:
        options = changed(options, answer=config.answer)
    device = device_of(config)
    frozen = frozen_student(linked_run(of, "backbone"), device)
    teacher = kept_teacher(of, options, frozen, data, device)
    ranked = teacher.ranks(run.work / "ranks")
    if ranked is None:
        raise InputError(f"run_id={of.run_id}: its teacher ranks no whole part; see the run's own metrics asked/…")
    validation, test, _ = ranked
    model = model_id_of_run(of.run_id)
    seen = config.exclude_seen
    log_results(run, data, validation, test, exclude_seen=seen, model=model, as_trained=as_trained)
    answered = teacher.answers()
    if answered is not None:
        log_answers(run, answered, model=model, datasets=measured_on(data) if as_trained else None)
