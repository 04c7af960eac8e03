"""A sweep from its options to its answer, whatever a trial trains."""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.study import Study

from recdistill.config import DataConfig, DistillConfig, SweepConfig, TeacherConfig, changed, narrow, option_table
from recdistill.config.lineage import SEARCHED_ROLES
from recdistill.config.steps import REVISIONS
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.plugins import load_plugins
from recdistill.runs import sweep_runs
from recdistill.runs.step_runs import StepRun
from recdistill.runs.store_address import without_secrets
from recdistill.sweep.answer import Finals, Together, write_answer
from recdistill.sweep.lead import Lead
from recdistill.sweep.named_study import description, find_or_make_study, most_epochs
from recdistill.sweep.progress import Lines, Progress
from recdistill.sweep.space import Space, base_config, example_configs
from recdistill.sweep.space_file import read_space
from recdistill.sweep.study import StudyPlace
from recdistill.sweep.totals import finished
from recdistill.sweep.trainings import (
    IDENTITY,
    FinalTraining,
    Preparation,
    Train,
    TrialTraining,
    settle,
    stale_trial_ended,
)
from recdistill.sweep.workers import Work, run_workers

#: Attribute of a study: the run of the teacher that all its trials share, or of its backbone; empty for files.
SHARED = "shared_run_id"
ANSWER_SECONDS = 1.0
Pin = Callable[[DistillConfig], DistillConfig]


@dataclass(frozen=True)
class Steps:
    """The steps that a sweep takes.

    Attributes:
        distill: what a trial is, ``(config, *, report)``.
        with_teacher: the options with the run of their teacher, found or made.
        with_backbone: the options with the run of their teacher's backbone, found or made.
        baseline: trains a student without a teacher, ``(config)``.
        data: the data set of the options.
        contents: what trials read beside options and data, as digests by name.
        progress: shows the trials of a sweep, ``(name, total)``, while it lasts.
        check_together: raises InputError where seeds of the options' student cannot train together.
        together: trains seeds together, see `answer.Finals`.
    """

    distill: Train
    with_teacher: Pin
    with_backbone: Pin
    baseline: Train
    data: Callable[[DataConfig], SequenceData] = load_data
    contents: Callable[[DistillConfig, SequenceData], Mapping[str, str]] = lambda config, data: {}
    progress: Callable[[str, int], AbstractContextManager[Progress]] = lambda name, total: nullcontext(Lines())
    check_together: Callable[[DistillConfig], None] = lambda config: None
    together: Together | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep, its options checked.

    Attributes:
        config: its options.
        space: what it searches.
        base: the options that all trials share.
        url: of the storage.
        described: all that its trials depend on.
    """

    config: SweepConfig
    space: Space
    base: DistillConfig
    url: str
    described: str

    @property
    def key_parts(self) -> dict[str, Any]:
        """All that its answer depends on, as JSON values."""
        asked = {"trials": self.config.trials, "final_seeds": self.config.final_seeds}
        # Their dropout is another; the keys of other sweeps stay.
        asked |= {"final_together": True} if self.trains_together else {}
        return {"step": "sweep", "revision": REVISIONS["sweep"], "study": json.loads(self.described)} | asked

    @property
    def trains_together(self) -> bool:
        """Whether several final seeds are one batched model."""
        return self.config.final_together and self.config.final_seeds > 1

    @cached_property
    def searches_teacher(self) -> bool:
        """Whether trials differ in their teachers."""
        own = teacher_values(self.base)
        return any(teacher_values(config) != own for config in example_configs(self.space, self.base))


def run_sweep(config: SweepConfig, steps: Steps) -> StepRun:
    """Run, join or go on with a sweep.

    Raises InputError where the space, the storage or the study cannot be used, or trials fail one after another.
    """
    load_plugins(config.plugin)
    space = read_space(config.space)
    base = base_config(space, config)
    data = steps.data(base)
    url = config.storage or f"sqlite:///{sweep_runs.folder_of_tracking() / 'optuna.db'}"
    sweep = Sweep(config, space, base, url, description(base, space, data.fingerprint, steps.contents(base, data)))
    check_sweep(sweep)
    check_final(sweep, steps.check_together)
    # The run shows the values that the space fixes.
    shown = changed(config, **base.values() | {"storage": without_secrets(url)})
    searched = [parameter.name for parameter in space.parameters]
    with sweep_runs.sweep_run(shown, data=data, parts=sweep.key_parts, searched=searched) as run:
        if run.reused:
            print(f"run {run.run_id} has the answer:\n\n{(run.artifact('answer') / 'said.md').read_text()}", flush=True)
        else:
            work_on_sweep(sweep, run, steps)
    return run


def check_sweep(sweep: Sweep) -> None:
    """Raise InputError where options of the command cannot be those of trials."""
    base = sweep.base
    if base.register:
        raise InputError(
            f"register={base.register}: trials keep no model; give it to the command that the sweep ends with"
        )
    for name in ("teacher_run_id", "teacher_files"):
        if getattr(base, name) and sweep.searches_teacher:
            raise InputError(
                f"{name}={getattr(base, name)}: is one teacher, and {sweep.space.path} searches options of the "
                f"teacher; leave {name} out, or give another space"
            )


def check_final(sweep: Sweep, check: Callable[[DistillConfig], None]) -> None:
    """Raise what ``check`` raises where final seeds are to train together, of the options of any trial, or of none."""
    for config in (sweep.base, *example_configs(sweep.space, sweep.base)) if sweep.trains_together else ():
        check(config)


def teacher_values(config: DistillConfig) -> dict[str, Any]:
    """The values that the result of the options' teacher depends on, of those that a space may search."""
    table = option_table(TeacherConfig)
    values = narrow(config, TeacherConfig).values()
    return {name: value for name, value in values.items() if table[name].role in SEARCHED_ROLES}


def work_on_sweep(sweep: Sweep, run: StepRun, steps: Steps) -> None:
    """Open the study, take part in the lead, make what all trials share, and work until there is an answer."""
    config, space = sweep.config, sweep.space
    study, place = find_or_make_study(config, space, sweep.base, sweep.url, sweep.described)
    check_total(study, config.trials)
    lead = Lead(
        study,
        run.run_id,
        run.key,
        over=lambda run_id: not sweep_runs.is_running(run_id),
        there=sweep_runs.is_there,
        taken=lambda before: sweep_runs.adopt(study.user_attrs[IDENTITY], run.run_id, before),
        lost=sweep_runs.end_killed,
        beat_seconds=config.heartbeat_seconds,
        grace_seconds=config.grace_seconds,
    )
    # The lead comes first: the teacher may take hours, and no trial may begin in a study without a leader.
    with lead:
        log_settings(run, space, place)
        base = with_shared_run(sweep, study, lead, steps)
        work_until_answered(sweep, base, place, study, lead, run, steps)


def check_total(study: Study, total: int) -> None:
    """Raise InputError where the study has more trials than the answer is to be over."""
    if finished(study) > total:
        raise InputError(
            f"trials={total}: study {study.study_name} has {finished(study)} finished trials; give that many or more, "
            "or another study"
        )


def with_shared_run(sweep: Sweep, study: Study, lead: Lead, steps: Steps) -> DistillConfig:
    """The options that all trials share, with the run of their teacher or backbone: the same in every command.

    The leader of the first commands finds or makes it, and the study keeps which it is. Raises InputError where it is
    no longer in the store.
    """
    searched = sweep.searches_teacher
    option, pin = ("backbone_run_id", steps.with_backbone) if searched else ("teacher_run_id", steps.with_teacher)
    while SHARED not in study.user_attrs:
        if not lead.leads and not lead.answered:
            time.sleep(ANSWER_SECONDS)
            continue
        base = pin(sweep.base)
        # Another command may have taken the lead meanwhile.
        if SHARED not in study.user_attrs:
            study.set_user_attr(SHARED, base.value(option))
            return base
    shared = str(study.user_attrs[SHARED])
    if shared and not sweep_runs.is_there(shared):
        raise InputError(
            f"study={study.study_name}: its trials share {option}={shared}, which is no longer in the tracking store; "
            "restore that run, or begin a new study by force=true"
        )
    return changed(sweep.base, **{option: shared})


def log_settings(run: StepRun, space: Space, place: StudyPlace) -> None:
    """Log on the sweep's run what is searched and how."""
    run.tag("study", place.name)
    run.tag("process", os.getpid())
    run.tag("objectives", ", ".join(f"{objective.direction} {objective.metric}" for objective in space.objectives))
    run.tag("sampler", space.sampler.name)
    run.tag("pruner", space.pruner.name)
    run.log_text("space.yaml", Path(space.path).read_text(encoding="utf-8"))


def work_until_answered(
    sweep: Sweep, base: DistillConfig, place: StudyPlace, study: Study, lead: Lead, run: StepRun, steps: Steps
) -> None:
    """Run trials to the total; then the leader answers, and the others wait for it."""
    config, space = sweep.config, sweep.space
    prepare = Preparation(sweep_runs.tracking_place(), config.plugin)
    training = TrialTraining(place.name, base, space.seeds, steps.distill)
    epochs = most_epochs(space, base)
    work = Work(place, space, base.seed, epochs, config.trials, training, stale_trial_ended, prepare)
    print(f"study {place.name} in {without_secrets(place.url)}: {config.trials} trials in all", flush=True)
    try:
        with steps.progress(f"sweep {Path(space.path).stem}", config.trials) as progress:
            run_workers(work, config.jobs, progress)
    finally:
        settle(study)
    while not lead.answered:
        if not lead.leads:
            time.sleep(ANSWER_SECONDS)
            continue
        # Commands with a larger total may have worked on the study, too.
        check_total(study, config.trials)
        identity = study.user_attrs[IDENTITY]
        sweep_runs.adopt(identity, run.run_id, "")
        sweep_runs.end_unsettled(identity)
        finals = FinalTraining(study.study_name, identity, run.run_id, steps.distill, steps.baseline)
        write_answer(config, space, base, study, run, Finals(finals, steps.with_teacher, prepare, steps.together))
        sweep_runs.keep(run)
        lead.answer()
    if not lead.leads:
        run.tag("sweep_run_id", lead.leader)
        print(f"the answer is in run {lead.leader}", flush=True)
