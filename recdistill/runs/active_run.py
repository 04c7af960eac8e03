"""A recorder for a training that is started from Python within an MLflow run of the user's own."""

from dataclasses import dataclass, field

import mlflow

from recdistill.config import Config, option_table
from recdistill.errors import InputError
from recdistill.runs.outbox import post
from recdistill.runs.run import DESCRIPTION, StepRun
from recdistill.runs.writes import batch
from recdistill.training.recorder import NoRecorder, Recorder


def recorder_of_active_run(step: str, config: Config | None = None) -> Recorder:
    """What a training logs to: the run that is active in this process, else nowhere.

    Args:
        step: name of the step that the training is, kept as the tag ``recdistill.fitted``.
        config: its options; those that do not choose data, and are no parameters of the run yet, become parameters.
    """
    active = mlflow.active_run()
    if active is None:
        return NoRecorder()
    run = ActiveRun(active.info.run_id, key="", fingerprint="", reused=False)
    # Not as `recdistill.step`, by which steps search for runs of their own.
    run.tag("fitted", step)
    if config is not None:
        known = mlflow.get_run(run.run_id).data.params
        table = option_table(type(config))
        # The data came as an object, not by these options.
        own = {name: value for name, value in config.values().items() if table[name].role != "data"}
        post(batch(run.run_id, params={name: value for name, value in own.items() if name not in known}))
    return run


def active_run_id() -> str:
    """Id of the run that is active in this process. Raises InputError where there is none."""
    active = mlflow.active_run()
    if active is None:
        raise InputError("no MLflow run is active; call it inside `with mlflow.start_run():`")
    return str(active.info.run_id)


@dataclass
class ActiveRun(StepRun):
    """A run that the user opened and will close. Its checkpoints go with the process.

    Attributes:
        checkpoints: holds the folder ``work``.
    """

    checkpoints: NoRecorder = field(default_factory=NoRecorder)

    def __post_init__(self) -> None:
        self.work = self.checkpoints.work

    def describe(self, text: str) -> None:
        """Set the run's description where the user gave it none."""
        if DESCRIPTION not in mlflow.get_run(self.run_id).data.tags:
            super().describe(text)
