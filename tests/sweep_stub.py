"""A trial in milliseconds: a ``distill`` run with everything but the training. Imported by worker processes too."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow

from recdistill.config.command_line import parse
from recdistill.config import DistillConfig, SweepConfig, option
from recdistill.data.downloads import cache_dir
from recdistill.steps.inputs import data_of
from recdistill.steps.sweep_study import Steps, run_sweep
from recdistill.runs.step_runs import StepRun, entry_run, step_run

EPOCHS = 3
SETTINGS = ["lam", "ed_weight", "temperature", "selection_policy", "selection_fraction"]
SPACE = """\
objective: val/ndcg_at_20
sampler: {name: tpe, startup_trials: 4}
parameters:
  lam: {low: 0.0, high: 2.0}
  ed_weight: {low: 0.0, high: 1.0}
"""


@dataclass(frozen=True, kw_only=True)
class Options(SweepConfig):
    """Options with short graces."""

    storage: str = option("", "")
    jobs: int = option(1, "", least=1)
    final_seeds: int = option(1, "", least=0)
    heartbeat_seconds: int = option(1, "", least=1)
    grace_seconds: int = option(3, "", least=2)


def quality(config: DistillConfig) -> float:
    """Best at lam 1 and ed_weight 0.3; seeds differ a little."""
    return 0.1 - 0.02 * (config.lam - 1) ** 2 - 0.05 * (config.ed_weight - 0.3) ** 2 + 0.0005 * config.seed


def train(config: DistillConfig, *, report: Callable[[int, dict[str, float]], None] | None = None) -> StepRun:
    """A run with curves and metrics. ``temperature`` above 5 fails; ``dropout`` times 1 s is an epoch's time.

    While it trains, the cache holds a file named after the process.
    """
    with step_run("distill", config, data=data_of(config), settings=SETTINGS, code=["errors.py"]) as run:
        if run.reused:
            return run
        if config.temperature > 5:
            raise RuntimeError("the stub is too hot")
        working = cache_dir() / "working" / str(os.getpid())
        working.parent.mkdir(parents=True, exist_ok=True)
        working.touch()
        for epoch in range(EPOCHS):
            time.sleep(config.dropout)
            metrics = {"val/ndcg_at_20": quality(config) * (epoch + 1) / EPOCHS}
            run.log_metrics(metrics, epoch)
            if report is not None:
                report(epoch, metrics)
        test = {"test/ndcg_at_20": quality(config) - 0.01, "test/hr_at_10": 0.2, "latency_ms": 0.005}
        run.log_metrics(test | {"train_seconds": 0.1, "val/ndcg_at_20": quality(config)}, EPOCHS)
        run.log_text("student.txt", "a student")
        working.unlink()
    return run


def as_given(config: DistillConfig) -> DistillConfig:
    """No teacher is needed."""
    return config


STEPS = Steps(train, as_given, as_given)


def write_data(folder: Path) -> dict[str, str]:
    """Options of a small data set."""
    lines = ["user,item,timestamp"]
    lines += [f"{user},{(user * 7 + step * 3) % 20},{step}" for user in range(30) for step in range(6)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    titles = ["item,title"] + [f"{item},Title {item}" for item in range(20)]
    (folder / "items.csv").write_text("\n".join(titles) + "\n")
    return {"dataset": "csv", "interactions": str(folder / "ratings.csv"), "items": str(folder / "items.csv")}


def options(folder: Path, space: str = SPACE, **changed: object) -> Options:
    """Options of a small sweep in a folder."""
    path = folder / "space.yaml"
    path.write_text(space, encoding="utf-8")
    small = {"epochs": 1, "hidden_size": 8, "heads": 1, "blocks": 1, "dropout": 0.0, "trials": 4}
    return Options(**(small | write_data(folder) | {"space": str(path)} | changed))  # type: ignore[arg-type]


def sweep(config: Options) -> StepRun:
    """A sweep as the command runs it."""
    with entry_run("sweep"):
        return run_sweep(config, STEPS)


def start_command(folder: Path, config: Options) -> "subprocess.Popen[bytes]":
    """The sweep in a process of its own."""
    given = [f"--{name}={value}" for name, value in vars(config).items()]
    code = "import sweep_stub; sweep_stub.command()"
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / f"command-{time.time()}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, *given], env=environment, stdout=log, stderr=log, cwd=folder
        )


def command() -> None:
    """Main function of `start_command`'s process."""
    sweep(parse(Options, "sweep", sys.argv[1:]))
