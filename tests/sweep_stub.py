"""A trial in milliseconds: a ``distill`` run with everything but the training. Imported by worker processes too."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import mlflow
import pandas as pd

from recdistill.config import DistillConfig, StudentConfig, SweepConfig, option
from recdistill.config.command_line import parse
from recdistill.data.downloads import cache_dir
from recdistill.data.load import load_data
from recdistill.runs.step_runs import StepRun, entry_run, step_run
from recdistill.sweep import figures
from recdistill.sweep.study_run import Steps, run_sweep

EPOCHS = 3
USERS = 30
SPACE = """\
objective: val/ndcg_at_20
sampler: {name: tpe, startup_trials: 4}
parameters:
  lam: {low: 0.0, high: 2.0}
  ed_weight: {low: 0.0, high: 1.0}
"""


@dataclass(frozen=True, kw_only=True)
class Options(SweepConfig):
    """Options of ``sweep``, with short graces."""

    heartbeat_seconds: int = option(1, "", role="place", least=1)
    grace_seconds: int = option(3, "", role="place", least=2)
    final_seeds: int = option(1, "", role="budget", least=0)


def quality(config: DistillConfig) -> float:
    """Best at lam 1 and ed_weight 0.3; seeds differ a little."""
    return 0.1 - 0.02 * (config.lam - 1) ** 2 - 0.05 * (config.ed_weight - 0.3) ** 2 + 0.0005 * config.seed


def ranks(rank: Callable[[int], int]) -> pd.DataFrame:
    """A table of ranks, ``rank(user)`` each."""
    users = range(USERS)
    columns = {"user": [f"u{user}" for user in users], "item": [f"i{user}" for user in users]}
    columns |= {"rank": [rank(user) for user in users]}
    return pd.DataFrame(columns | {"history_length": [5] * USERS, "item_count": [9] * USERS})


def train(config: DistillConfig, *, report: Callable[[int, dict[str, float]], None] | None = None) -> StepRun:
    """A run with curves, metrics and ranks. ``temperature`` above 5 fails; ``dropout`` times 1 s is an epoch's time.

    While it trains, the cache holds a file named after the process.
    """
    with step_run("distill", config, data=load_data(config), kept="all" if report is None else "results") as run:
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
        # The nearer lam is to 1, the better the rank of every second user.
        far = round(10 * abs(config.lam - 1))
        run.log_ranks({"test": ranks(lambda user: 2 + far * (user % 2))})
        run.log_text("student.txt", "a student")
        working.unlink()
    return run


def baseline(config: StudentConfig) -> StepRun:
    """A run of a student without teacher, worse than all that have one."""
    with step_run("backbone", config, data=load_data(config)) as run:
        if not run.reused:
            run.log_metrics({"val/ndcg_at_20": 0.05, "test/ndcg_at_20": 0.04, "test/hr_at_10": 0.1})
            run.log_ranks({"test": ranks(lambda user: 19)})
    return run


def as_given(config: DistillConfig) -> DistillConfig:
    """No teacher is needed."""
    return config


STEPS = Steps(train, as_given, as_given, baseline)


def write_data(folder: Path) -> dict[str, str]:
    """Options of a small data set."""
    lines = ["user,item,timestamp"]
    lines += [f"{user},{(user * 7 + step * 3) % 20},{step}" for user in range(USERS) for step in range(6)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    titles = ["item,title"] + [f"{item},Title {item}" for item in range(20)]
    (folder / "items.csv").write_text("\n".join(titles) + "\n")
    return {"dataset": "csv", "interactions": str(folder / "ratings.csv"), "items": str(folder / "items.csv")}


def options(folder: Path, space: str = SPACE, **changes: object) -> Options:
    """Options of a small sweep in a folder."""
    path = folder / "space.yaml"
    path.write_text(space, encoding="utf-8")
    small = {"epochs": 1, "hidden_size": 8, "heads": 1, "blocks": 1, "dropout": 0.0, "trials": 4}
    return Options(**(small | write_data(folder) | {"space": str(path)} | changes))  # type: ignore[arg-type]


def sweep(config: Options, steps: Steps = STEPS) -> StepRun:
    """A sweep as the command runs it, its figures empty files: drawing them takes longer than all else."""
    with entry_run("sweep"), patch.object(figures, "draw_png", lambda figure, path: path.touch()):
        return run_sweep(config, steps)


def start_command(folder: Path, config: Options) -> "subprocess.Popen[bytes]":
    """The sweep in a process of its own."""
    given = [f"--{name}={value}" for name, value in config.values().items()]
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
