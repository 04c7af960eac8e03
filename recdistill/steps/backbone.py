"""``backbone``: a recommender without teacher; a SASRec is also what a teacher's gate and injection read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from recdistill.config import BaselineConfig, DataConfig, StudentConfig, TrainingConfig, narrow
from recdistill.config.lineage import run_key
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.release.released_students import read_released_sasrec
from recdistill.runs.finished_runs import find_finished
from recdistill.runs.registry import check_registry
from recdistill.runs.run import Kept, StepRun
from recdistill.runs.step_runs import runs_of_their_own, step_run
from recdistill.steps.inputs import data_of
from recdistill.steps.refit import refit
from recdistill.steps.registered import registered
from recdistill.steps.results import keep_student
from recdistill.steps.student_start import StudentStart, keys_of, measured, student_start
from recdistill.steps.student_texts import keep_trained
from recdistill.students.build import shape_of
from recdistill.students.measure import measure
from recdistill.students.sasrec import SASRec, SelfAttention
from recdistill.students.together import Member
from recdistill.students.training import Report, check_student
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes, join


def backbone(config: StudentConfig, *, report: Report | None = None, member: Member[Any] | None = None) -> StepRun:
    """Train, or find, the recommender of the options; ``report`` and ``member`` as in `fit_recommender`.

    Started by ``accelerate launch`` or torchrun, several processes train together; the main one has the run.
    With ``refit`` that run is found or made first, and the student trained again on all interactions.
    With ``released`` it comes out of that file instead, and is measured and kept as a trained one is.
    """
    options = narrow(config, BaselineConfig)
    processes = join(device_of(options))
    processes.from_main(lambda: check_registry(options.register))
    data = processes.main_first(lambda: data_of(options))
    if options.refit:
        with runs_of_their_own():
            first = backbone(processes.from_main(lambda: measured(options)))
        start = processes.main_first(lambda: student_start(options, data))
        run = refit("backbone", options, data, first, start, processes=processes)
    elif options.released:
        run = processes.from_main(lambda: imported(options, data))
    else:
        run = trained(options, data, report, processes, member)
    if options.register and processes.is_main:
        registered(run, options.register)
    return run


def trained(
    config: BaselineConfig,
    data: SequenceData,
    report: Report | None,
    processes: Processes,
    member: Member[Any] | None = None,
) -> StepRun:
    """The run of a recommender that is trained or fitted here."""
    processes.from_main(lambda: check_student(config, data.num_items, processes))
    start = replace(processes.main_first(lambda: student_start(config, data)), member=member)
    kept: Kept = "all" if report is None else "results"
    opened = step_run("backbone", config, data=data, upstream=start.upstream, kept=kept, contents=start.contents)
    with processes.main_enters(opened) as run:
        if not run.reused and not processes.is_main:
            start.help_fit(config, data, run, processes)
        elif not run.reused:
            fitted, vectors = start.fit(config, data, run, report, processes=processes)
            keep_trained(run, config, data, fitted, start.texts, vectors)
            how = f"{len(data.train):,} training samples"
            if fitted.progress is not None:
                best = fitted.progress.best_epoch + 1
                how += f"; best of {fitted.progress.epoch} epochs by validation NDCG@10: {best}"
            run.describe(f"{baseline_name(config.student)} on {data.name} ({data.split}), {how}.")
    return run


def baseline_name(student: str) -> str:
    """What a recommender without teacher is called."""
    return f"Undistilled {student}" if student in STUDENTS.names(gradient=True) else student


def imported(config: BaselineConfig, data: SequenceData) -> StepRun:
    """The run of iLoRA's released SASRec. Raises InputError where the file does not fit the data or the options."""
    model = read_released_sasrec(Path(config.released).expanduser())
    assert isinstance(model, SASRec)
    if model.num_items != data.num_items:
        raise InputError(
            f"released={config.released}: is a SASRec of {model.num_items} items, this data has {data.num_items}; "
            "give the data set that it was trained on, its items in the order of their ids"
        )
    config = as_released(config, model)
    with step_run("backbone", config, data=data) as run:
        if not run.reused:
            device = device_of(config)
            shape = shape_of(config)
            fitted = measure(model.to(device), shape, data, device, exclude_seen=config.exclude_seen)
            keep_student(run, config, data, fitted)
            run.describe(
                f"iLoRA's released SASRec ({Path(config.released).name}), not trained here, measured on {data.name} "
                f"({data.split}). It may have been trained on interactions that are held out here."
            )
    return run


def as_released(config: BaselineConfig, model: SASRec) -> BaselineConfig:
    """The options with the shape of a released SASRec. Raises InputError where another shape was asked for."""
    attention = model.attentions[0]
    assert isinstance(attention, SelfAttention)
    shape: dict[str, Any] = {
        "student": "sasrec",
        "hidden_size": model.state_size,
        "blocks": len(model.attentions),
        "heads": attention.heads,
        "dropout": model.dropout.probability,
        "max_length": model.max_length,
        "output": model.output_kind,
    }
    defaults = BaselineConfig()
    for name, value in shape.items():
        asked = config.value(name)
        if asked not in (value, defaults.value(name)):
            raise InputError(f"{name}={asked}: the student in released={config.released} has {value}; leave {name} out")
    # Nothing is trained: options of a training have their defaults, and no other values make another run.
    kept = {name: config.value(name) for name in ("seed", "device", "released", "register")}
    return narrow(narrow(config, DataConfig), BaselineConfig, **kept, **shape)


def key_of_baseline(config: StudentConfig, fingerprint: str, start: StudentStart) -> str:
    """The key of the run that `backbone` makes or finds for these options, with what its training starts from."""
    options = narrow(config, BaselineConfig)
    return run_key("backbone", options, fingerprint, keys_of(start.upstream), start.contents)


def finished_baseline(config: BaselineConfig) -> str:
    """Id of the run that `backbone` would find; '' where it would train."""
    if config.force:
        return ""
    data = data_of(config)
    start = student_start(config, data)
    found = find_finished(key_of_baseline(config, data.fingerprint, start), start.upstream)
    return "" if found is None else str(found.info.run_id)


def frozen_backbone(config: TrainingConfig) -> BaselineConfig:
    """The options of a teacher's frozen SASRec: the defaults, on this data and seed, whatever the student's are."""
    return narrow(narrow(config, TrainingConfig, force=False), BaselineConfig)
