"""Time ``compare`` and the search for an upstream run in a store of 1,000 finished runs.

Run ``python benchmarks/many_runs.py`` (``--help`` lists the sizes). It fills a store of its own in a temporary
folder: distill runs of several seeds a setting, their undistilled twins, each with a rank for every user. One JSON
line last: ``compare_filter_s`` (a condition that fits a tenth of the runs), ``compare_all_s`` and
``find_upstream_s``, each with reading the store, the tests and the report.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from recdistill.config import CompareConfig
from recdistill.runs.finished_runs import find_finished
from recdistill.runs.run import KEY
from recdistill.runs.step_runs import entry_run
from recdistill.steps.compare import compare

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from synthetic_runs import Samples, add_run


def fill(experiment: str, runs: int, users: int, seeds: int) -> None:
    """A twin of each seed, and distill runs of ten values of lam at ever other values of alpha."""
    client, samples = MlflowClient(), Samples(users)
    twins = [
        add_run(client, samples, "backbone", samples.ranks(seed), seed=seed, experiment=experiment)
        for seed in range(seeds)
    ]
    for number in range(runs - seeds):
        setting, seed = divmod(number, seeds)
        tags = {"recdistill.twin_run_id": twins[seed], KEY: f"key{number}"}
        ranks = samples.ranks(seeds + number, gain=0.02 * (setting % 10))
        add_run(
            client,
            samples,
            "distill",
            ranks,
            tags=tags,
            experiment=experiment,
            seed=seed,
            lam=(setting % 10) / 10,
            alpha=setting // 10 / 100,
        )


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time, rounded; what the work prints is thrown away."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        work()
    return round(time.perf_counter() - begin, 2)


def compare_with(condition: str) -> None:
    with entry_run("compare"):
        compare(CompareConfig(filter=condition))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time compare in a store of many runs.")
    parser.add_argument("--runs", type=int, default=1000, help="finished runs in the store (default 1000)")
    parser.add_argument("--users", type=int, default=943, help="ranks of each run (default 943)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds a setting (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RECDISTILL_CACHE"] = f"{folder}/cache"
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        experiment = mlflow.create_experiment("runs", f"file://{folder}/artifacts")
        mlflow.set_experiment(experiment_id=experiment)
        fill_s = seconds(lambda: fill(experiment, arguments.runs, arguments.users, arguments.seeds))
        print(f"{arguments.runs} runs written in {fill_s} s")
        found = {
            "find_upstream_s": seconds(lambda: find_finished("key17")),
            "compare_filter_s": seconds(lambda: compare_with("params.lam = '0.5'")),
            "compare_all_s": seconds(lambda: compare_with("")),
        }
    print(json.dumps({"runs": arguments.runs, "users": arguments.users} | found))


if __name__ == "__main__":
    main()
