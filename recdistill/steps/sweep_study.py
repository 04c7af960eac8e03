"""A sweep from its options to its answer, whatever a trial trains."""

import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

from optuna.study import Study

from recdistill.config import (
    StudentConfig,
    DataConfig,
    DistillConfig,
    SweepConfig,
    TeacherConfig,
    narrow,
    own_fields,
)
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.steps.backbone import CODE as BACKBONE_CODE
from recdistill.data.contents import contents_of
from recdistill.steps.distill import CODE as DISTILL_CODE
from recdistill.steps.inputs import data_of
from recdistill.steps.sweep_runs import (
    DESCRIPTION,
    IDENTITY,
    Final,
    FinalTraining,
    Train,
    TrialTraining,
    check_same,
    found_dead,
    settle,
)
from recdistill.steps.teacher import CODE as TEACHER_CODE
from recdistill.sweep import answer
from recdistill.sweep.figures import write_figures
from recdistill.sweep.lead import Lead
from recdistill.sweep.space import Space, base_config
from recdistill.sweep.space_file import read_space
from recdistill.sweep.study import OpenStudy, StudyPlace, hidden, open_study
from recdistill.sweep.workers import Work, map_tasks, run_workers
from recdistill.runs import sweep_runs
from recdistill.runs.provenance import run_key
from recdistill.runs.step_runs import StepRun

#: What the values of a study's trials depend on, and what the answer does.
STUDY_CODE = [*BACKBONE_CODE, *TEACHER_CODE, *DISTILL_CODE, "sweep/space.py", "sweep/study.py", "steps/inputs.py"]
CODE = [*STUDY_CODE, "sweep", "steps/sweep.py", "steps/sweep_runs.py", "steps/sweep_study.py"]
ANSWER_SECONDS = 1.0
Pin = Callable[[DistillConfig], DistillConfig]


@dataclass(frozen=True)
class Steps:
    """The steps that a sweep takes.

    Attributes:
        distill: what a trial is, ``(config, *, report)``.
        with_teacher: the options with the run of their teacher, found or made.
        with_backbone: the options with the run of their teacher's backbone, found or made.
    """

    distill: Train
    with_teacher: Pin
    with_backbone: Pin


def run_sweep(config: SweepConfig, steps: Steps) -> StepRun:
    """Run, join or go on with a sweep.

    Raises InputError where the space, the storage or the study cannot be used, or trials fail one after another.
    """
    space = read_space(config.space)
    base = base_config(space, narrow(config, DistillConfig))
    if base.register:
        raise InputError(
            f"register={base.register}: trials keep no model; give it to the command that the sweep ends with"
        )
    data = data_of(base)
    url = config.storage or f"sqlite:///{sweep_runs.folder_of_tracking() / 'optuna.db'}"
    described = description(base, space, data)
    key = run_key("sweep", {"study": described, "trials": config.trials, "finals": config.final_seeds}, CODE, {})
    # What the space fixes is what the run says.
    fixed = {spec.name: getattr(base, spec.name) for spec in fields(DistillConfig)}
    shown = replace(config, storage=hidden(url), **fixed)
    with sweep_runs.sweep_run(shown, data=data, key=key) as run:
        if run.reused:
            print(f"run {run.run_id} has the answer:\n\n{(run.artifact('answer') / 'said.md').read_text()}", flush=True)
            return run
        opened, place = open_named(config, space, base, url, described)
        log_settings(run, space, place)
        # What all trials share is made once, before there are workers.
        base = steps.with_backbone(base) if searches_teacher(space) else steps.with_teacher(base)
        lead = Lead(
            opened.study,
            run.run_id,
            key,
            over=lambda run_id: not sweep_runs.is_running(run_id),
            there=sweep_runs.is_there,
            taken=lambda before: sweep_runs.adopt(opened.study.user_attrs[IDENTITY], run.run_id, before),
            lost=sweep_runs.end_killed,
            beat_seconds=config.heartbeat_seconds,
            grace_seconds=config.grace_seconds,
        )
        if opened.created:
            lead.take()
        with lead:
            work_until_answered(config, space, base, place, opened.study, lead, run, steps)
    return run


def description(base: DistillConfig, space: Space, data: SequenceData) -> str:
    """All that the values of a study's trials depend on, but the code."""
    options = {name: value for name, value in asdict(base).items() if name not in ("force", "device")}
    content = contents_of(base, "llm", "teacher_files", "policy_file")
    return json.dumps([space.described(), options, data.fingerprint, content], sort_keys=True)


def open_named(
    config: SweepConfig, space: Space, base: DistillConfig, url: str, described: str
) -> tuple[OpenStudy, StudyPlace]:
    """The study of this name, or of the name made from what it searches; a new one with ``force``."""
    made = f"{Path(config.space).stem}-{run_key('study', {'study': described}, STUDY_CODE, {})[:8]}"
    count = 1
    while True:
        name = (config.study or made) + (f"-{count}" if count > 1 else "")
        place = StudyPlace(url, name, config.heartbeat_seconds, config.grace_seconds)
        opened = open_study(place, space, base.seed, most_epochs(space, base), killed=found_dead, create=True)
        if opened.created:
            first = space.defaults(base)
            if first is None:
                print(f"{space.path} does not hold the default configuration: it is no trial", flush=True)
            else:
                opened.study.enqueue_trial(first)
            opened.study.set_user_attr(DESCRIPTION, described)
            opened.study.set_user_attr(IDENTITY, uuid.uuid4().hex)
            return opened, place
        if not config.force:
            await_identity(opened.study, config.grace_seconds)
            check_same(opened.study, described)
            return opened, place
        if config.study:
            raise InputError(f"study={name}: is there already; force=true needs a new name")
        count += 1


def await_identity(study: Study, seconds: float) -> None:
    """Wait for the process that made the study to describe it; do it where that process was killed."""
    deadline = time.monotonic() + seconds
    while IDENTITY not in study.user_attrs:
        if time.monotonic() > deadline:
            study.set_user_attr(IDENTITY, uuid.uuid4().hex)
        time.sleep(0.1)


def searches_teacher(space: Space) -> bool:
    """Whether trials differ in their teachers."""
    return not {parameter.name for parameter in space.parameters}.isdisjoint(own_fields(TeacherConfig, DataConfig))


def most_epochs(space: Space, base: DistillConfig) -> int:
    """Epochs that a trial may have."""
    found = [value for p in space.parameters if p.name == "epochs" for value in p.examples()]
    return int(max(found, default=base.epochs))


def log_settings(run: StepRun, space: Space, place: StudyPlace) -> None:
    """What is searched and how, on the sweep's run."""
    run.tag("study", place.name)
    run.tag("process", os.getpid())
    run.tag("objectives", ", ".join(f"{objective.direction} {objective.metric}" for objective in space.objectives))
    run.tag("sampler", space.sampler.name)
    run.tag("pruner", space.pruner.name)
    run.log_text("space.yaml", Path(space.path).read_text(encoding="utf-8"))


def work_until_answered(
    config: SweepConfig,
    space: Space,
    base: DistillConfig,
    place: StudyPlace,
    study: Study,
    lead: Lead,
    run: StepRun,
    steps: Steps,
) -> None:
    """Run trials to the total; then the leader answers, and the others wait for it."""
    prepare = partial(sweep_runs.use_tracking, sweep_runs.tracking_place())
    training = TrialTraining(place.name, base, space.seeds, steps.distill)
    epochs = most_epochs(space, base)
    work = Work(place, space, base.seed, epochs, config.trials, training, found_dead, prepare)
    print(f"study {place.name} in {hidden(place.url)}: {config.trials} trials in all", flush=True)
    try:
        run_workers(work, config.jobs)
    finally:
        settle(study)
    while not lead.answered:
        if not lead.leads:
            time.sleep(ANSWER_SECONDS)
            continue
        sweep_runs.adopt(study.user_attrs[IDENTITY], run.run_id, "")
        sweep_runs.end_unsettled(study.user_attrs[IDENTITY])
        write_answer(config, space, base, study, run, steps, prepare)
        sweep_runs.keep(run)
        lead.answer()
    if not lead.leads:
        run.tag("sweep_run_id", lead.leader)
        print(f"the answer is in run {lead.leader}", flush=True)


def write_answer(
    config: SweepConfig,
    space: Space,
    base: DistillConfig,
    study: Study,
    run: StepRun,
    steps: Steps,
    prepare: Callable[[], None],
) -> None:
    """Figures, best values, and the final comparison."""
    best = answer.best_trials(study, space)
    chosen = replace(base, **best[0].params)
    run.log_folder("figures", lambda folder: draw(folder, study, space))
    log_trials(run, space, study)
    run.log_metrics({o.metric: value for o, value in zip(space.objectives, best[0].values, strict=True)})
    for name, value in {"trial": best[0].number, **best[0].params}.items():
        run.tag(f"best.{name}", value)
    # What was searched is named even where the default was best.
    given = {name: getattr(config, name) for name in ("teacher_run_id", "backbone_run_id") if getattr(config, name)}
    options = answer.options_of(chosen) | best[0].params | given
    texts = {"best.yaml": answer.as_yaml(options), "command.txt": answer.command(options) + "\n"}
    if len(space.objectives) > 1:
        texts["pareto.csv"] = answer.front(best, space)
    finals = FinalTraining(study.study_name, study.user_attrs[IDENTITY], run.run_id, steps.distill)
    if config.final_seeds:
        # The seeds are the students': each configuration keeps one teacher.
        rows = final_rows(config, space, steps.with_teacher(base), steps.with_teacher(chosen), finals, prepare)
        texts |= {"table.md": answer.table(rows, space), "table.json": answer.as_json(rows, space)}
        run.log_metrics(answer.summary(rows, space))
    said = "\n".join(texts[name] for name in ("pareto.csv", "table.md", "command.txt") if name in texts)
    run.log_folder("answer", lambda folder: write_texts(folder, texts | {"said.md": said}))
    run.describe(said)
    print(said, flush=True)


def final_rows(
    config: SweepConfig,
    space: Space,
    base: DistillConfig,
    chosen: DistillConfig,
    finals: FinalTraining,
    prepare: Callable[[], None],
) -> list[answer.Row]:
    """The best, the default and the undistilled student, trained with each of the final seeds."""
    # Not those of the trials: the best was chosen by them.
    first = base.seed + space.seeds
    seeds = range(first, first + config.final_seeds)
    plain = narrow(chosen, StudentConfig)
    named: list[tuple[str, StudentConfig]] = [("best", chosen), ("default", base), ("undistilled", plain)]
    tasks = [Final(name, replace(options, seed=seed)) for name, options in named for seed in seeds]
    results = map_tasks(finals, tasks, config.jobs, prepare)
    by_name = {name: [r for t, r in zip(tasks, results, strict=True) if t.name == name] for name, _ in named}
    return [answer.Row(name, found) for name, found in by_name.items()]


def log_trials(run: StepRun, space: Space, study: Study) -> None:
    """Each objective by trial number, and where there is one, the best so far."""
    curves: dict[str, list[tuple[int, float]]] = {}
    best: float | None = None
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name != "COMPLETE":
            continue
        for objective, value in zip(space.objectives, trial.values, strict=True):
            curves.setdefault(f"trials/{objective.metric}", []).append((trial.number, value))
            if len(space.objectives) == 1:
                better = max if objective.direction == "maximize" else min
                best = value if best is None else better(best, value)
                curves.setdefault("trials/best", []).append((trial.number, best))
    sweep_runs.log_values(run.run_id, curves)


def draw(folder: Path, study: Study, space: Space) -> None:
    """The figures."""
    write_figures(folder, study, space)


def write_texts(folder: Path, texts: dict[str, str]) -> None:
    """Files of these names and contents."""
    folder.mkdir(parents=True)
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8")
