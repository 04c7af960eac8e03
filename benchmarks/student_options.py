"""Validation NDCG@10 of a student without a teacher under several sets of options, seed by seed.

``python benchmarks/student_options.py "" "window_stride=50" "base_loss=sampled negatives=512" --seeds 3`` trains each
for ``epochs`` epochs, in turns, and prints its best validation NDCG@10, the mean over the last five epochs, and CPU
seconds; a table of mean and deviation over the seeds last. Options for all rows follow, as ``--student gru4rec``.
"""

import argparse
import statistics
import time
from collections.abc import Mapping

import torch

from recdistill.config import StudentConfig
from recdistill.config.command_line import parse
from recdistill.steps.inputs import data_of
from recdistill.students.training import fit_recommender
from recdistill.training.recorder import NoRecorder

LAST = 5


class Curve(NoRecorder):
    """A recorder of the validation metric."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self.values.append(metrics["val/ndcg_at_10"])


def cell(values: list[float], digits: int) -> str:
    """Mean and deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "", allow_abbrev=False)
    parser.add_argument("rows", nargs="+", help="options of a row, as 'window_stride=50'; '' for the defaults")
    parser.add_argument("--seeds", type=int, default=3)
    arguments, given = parser.parse_known_args()
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float, float]]] = {row: [] for row in arguments.rows}
    for seed in range(1, arguments.seeds + 1):
        for row, values in found.items():
            options = [part for one in row.split() for part in ("--" + one.split("=")[0], one.split("=")[1])]
            config: StudentConfig = parse(StudentConfig, "backbone", [*given, *options, "--seed", str(seed)])
            data, recorder, started = data_of(config), Curve(), time.process_time()
            fit_recommender(config, data, recorder=recorder, report=lambda epoch, metrics: None)
            seconds = time.process_time() - started
            curve = recorder.values
            values.append((max(curve), statistics.mean(curve[-LAST:]), seconds))
            print(f"{row or 'defaults'} seed {seed}: " + " ".join(f"{one:.4f}" for one in values[-1]), flush=True)
    print(f"\n| options | best val/ndcg_at_10 | last {LAST} epochs | CPU seconds |\n| --- | --- | --- | --- |")
    for row, values in found.items():
        best, last, seconds = (list(one) for one in zip(*values, strict=True))
        print(f"| {row or 'defaults'} | {cell(best, 4)} | {cell(last, 4)} | {cell(seconds, 0)} |")


if __name__ == "__main__":
    main()
