"""Time a sweep: what tracking and storage cost of a trial, and what a second worker gains.

Run ``python benchmarks/sweep_overhead.py`` in a folder whose tracking store has the main job's teacher (it is made
where there is none). Options of ``sweep`` are taken too, as ``--space distill``. The same sweep is run
with one worker and with more, each anew. It prints one JSON line last: ``trial_s`` (mean), ``tracking_s`` and
``storage_s`` of it (MLflow's calls; Optuna's, its samplers' and pruners' included), ``overhead_share``, the
``trials_per_minute`` and ``minutes`` of each number of workers, and their ``speedup``.

The parts are timed in the run with one worker, which is this process; heartbeats are sent by a thread and not counted.
A trial given up early counts as a trial.
"""

import argparse
import functools
import inspect
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import mlflow
import optuna
from mlflow.tracking import MlflowClient

from recdistill.config import SweepConfig, changed
from recdistill.config.command_line import parse
from recdistill.runs.step_runs import entry_run
from recdistill.steps.sweep import sweep
from recdistill.sweep import study_run, trials, workers


class Clock:
    """Seconds of this thread in wrapped functions, by part; what one calls is its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.thread, self.inside = threading.get_ident(), False

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self.inside or threading.get_ident() != self.thread:
                return function(*arguments, **named)
            self.inside, began = True, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.inside = False
                self.seconds[part] += time.perf_counter() - began

        return timed

    def wrap_methods(self, part: str, owner: type) -> None:
        """All public methods of a class."""
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_") or name == "__init__":
                setattr(owner, name, self.wrap(part, function))


def watch() -> tuple[Clock, list[float]]:
    """Time MLflow, Optuna and whole trials from here on. Returns their clock and the trials' seconds."""
    clock, seconds = Clock(), []
    clock.wrap_methods("tracking", MlflowClient)
    for name in ("start_run", "end_run", "get_run", "search_runs"):
        setattr(mlflow, name, clock.wrap("tracking", getattr(mlflow, name)))
    for owner in (optuna.storages.RDBStorage, optuna.Trial, optuna.Study):
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_") and name != "optimize":
                setattr(owner, name, clock.wrap("storage", function))
    original = trials.run_trial

    def whole(*arguments: Any) -> Any:
        before, began = dict(clock.seconds), time.perf_counter()
        attempt = original(*arguments)
        seconds.append(time.perf_counter() - began)
        for part in ("tracking", "storage"):
            clock.seconds[f"trials {part}"] += clock.seconds[part] - before.get(part, 0.0)
        return attempt

    trials.run_trial = whole  # type: ignore[assignment]
    return clock, seconds


def run(config: SweepConfig) -> float:
    """Minutes of a sweep's trials, from the first worker's start to the total."""
    took = 0.0

    def timed(*arguments: Any) -> None:
        nonlocal took
        began = time.perf_counter()
        workers.run_workers(*arguments)
        took = (time.perf_counter() - began) / 60

    study_run.run_workers = timed
    with entry_run("sweep"):
        sweep(config)
    return took


def main() -> None:
    """Parse the arguments, run the sweeps, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="of the second sweep; 0 leaves it out")
    given, rest = parser.parse_known_args()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    config = changed(parse(SweepConfig, "sweep", rest), trials=given.trials, final_seeds=0, force=True)
    minutes = {}
    if given.workers:
        minutes[given.workers] = run(changed(config, jobs=given.workers))
    clock, seconds = watch()
    minutes[1] = run(changed(config, jobs=1))
    mean = sum(seconds) / len(seconds)
    tracking, storage = (clock.seconds[f"trials {part}"] / len(seconds) for part in ("tracking", "storage"))
    result = {
        "trials": given.trials,
        "trial_s": round(mean, 2),
        "tracking_s": round(tracking, 3),
        "storage_s": round(storage, 3),
        "overhead_share": round((tracking + storage) / mean, 4),
        "minutes": {str(jobs): round(value, 2) for jobs, value in minutes.items()},
        "trials_per_minute": {str(jobs): round(given.trials / value, 2) for jobs, value in minutes.items()},
    }
    if given.workers:
        result["speedup"] = round(minutes[1] / minutes[given.workers], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
