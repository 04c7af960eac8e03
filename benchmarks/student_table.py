"""Three students, five ways to train each, several seeds: what each part of DLLM2Rec brings.

``python benchmarks/student_table.py`` trains (or finds) the runs, each a ``backbone`` or ``distill`` run in MLflow,
from one teacher, by default the newest, and writes the table of test metrics, mean and standard deviation over seeds,
with the mean gain over the undistilled student of the same seed. Options of ``distill`` are taken too, as
``--patience 5``, and are the same in every row. Runs that are finished are found again, so that several processes can
share the work, each with ``--students`` of its own, and a last one without prints the whole table. One JSON line last.
"""

import argparse
import json
import statistics
from dataclasses import replace

import torch

from recdistill.config import DistillConfig, StudentConfig, narrow
from recdistill.config.command_line import parse
from recdistill.runs.step_runs import entry_run, newest
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill

STUDENTS = ("sasrec", "gru4rec", "caser")
METRICS = ("test/ndcg_at_10", "test/ndcg_at_20", "test/hr_at_10", "val/ndcg_at_10")
VARIANTS = {
    "undistilled": {},
    "+ranking": {"alpha": 0.0, "ed_weight": 0.0},
    "+embedding": {"alpha": 0.0, "lam": 0.0},
    "+both": {"alpha": 0.0},
    "+both +DRO": {"alpha": 0.1},
}


def results_of(base: DistillConfig, variant: str) -> dict[str, float]:
    """Metrics of the run of these options."""
    if variant == "undistilled":
        return backbone(narrow(base, StudentConfig)).metrics()
    return distill(replace(base, **VARIANTS[variant])).metrics()


def cell(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS))
    parser.add_argument("--teacher_run_id", default="")
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own number")
    arguments, rest = parser.parse_known_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    teacher = arguments.teacher_run_id or newest("teacher")
    options = replace(parse(DistillConfig, "distill", rest), teacher_run_id=teacher)
    rows, summary = [], {}
    with entry_run("table"):
        for student in arguments.students:
            found = {}
            for variant in VARIANTS:
                seeds = [
                    results_of(replace(options, student=student, seed=seed), variant)
                    for seed in range(1, arguments.seeds + 1)
                ]
                found[variant] = {name: [metrics[name] for metrics in seeds] for name in METRICS}
                gains = [
                    after - before
                    for after, before in zip(found[variant][METRICS[0]], found["undistilled"][METRICS[0]], strict=True)
                ]
                cells = [student, variant, *(cell(found[variant][name]) for name in METRICS)]
                rows.append([*cells, f"{statistics.mean(gains):+.4f}" if variant != "undistilled" else ""])
                print(" | ".join(rows[-1]), flush=True)
                summary[f"{student} {variant}"] = round(statistics.mean(found[variant][METRICS[0]]), 4)
    print(f"\nfrom teacher {teacher}, {arguments.seeds} seeds {' '.join(rest)}\n")
    header = ["student", "trained", *METRICS, "gain in test/ndcg_at_10"]
    for line in [header, ["---"] * len(header), *rows]:
        print(f"| {' | '.join(line)} |")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
