"""``sweep``: Optuna over a search space, each trial a ``distill`` run nested in the sweep's."""

from contextlib import AbstractContextManager

from recdistill.config import DistillConfig, SweepConfig, changed
from recdistill.runs.run import StepRun
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill
from recdistill.steps.estimate import announce
from recdistill.steps.inputs import data_of
from recdistill.steps.path_bar import TrialBar
from recdistill.steps.student_start import whole_path_contents
from recdistill.steps.teacher import check_teacher_of, find_backbone, find_teacher
from recdistill.steps.time_budget import within_time
from recdistill.students.together import check_together, train_together
from recdistill.sweep.study_run import Steps, run_sweep


def sweep(config: SweepConfig) -> StepRun:
    """Run, join or go on with a sweep, and answer it; see docs/SWEEPS.md."""
    if config.teacher_files or config.teacher_run_id or config.backbone_run_id:
        check_teacher_of(config, data_of(config))
    config = within_time(config)
    announce("sweep", config)
    return run_sweep(
        config,
        Steps(
            distill,
            with_teacher,
            with_backbone,
            backbone,
            data_of,
            whole_path_contents,
            trial_bar,
            check_together,
            train_together,
        ),
    )


def trial_bar(name: str, trials: int) -> AbstractContextManager[TrialBar]:
    """The bar of a sweep's trials, there while it lasts."""
    return TrialBar(name, trials).shown()


def with_teacher(config: DistillConfig) -> DistillConfig:
    """The options, with the run of their teacher: found, or made. Files need none."""
    if config.teacher_files:
        return config
    found = find_teacher(config, config.teacher_run_id, data_of(config))
    return changed(config, teacher_run_id=found.run_id)


def with_backbone(config: DistillConfig) -> DistillConfig:
    """The options, with the run of their teacher's frozen backbone: found, or made."""
    return changed(config, backbone_run_id=find_backbone(config, data_of(config)).run_id)
