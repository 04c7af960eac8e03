"""Does the ranking teacher beat its own frozen SASRec, and what does the gate bring? Over several seeds.

``python benchmarks/teacher_table.py --token_budget 250000`` trains (or finds) teacher runs in MLflow: with the gate,
and with one expert (K = 1), which is plain LoRA of the same rank, on the same tokens over the same SASRec. It writes
the table of their metrics beside the SASRec's, mean and standard deviation over seeds, and the gain over the SASRec
seed by seed. Options of ``teacher`` are taken too and are the same in every row. Finished runs are found again, so that
several processes can share the work, each with ``--rows`` of its own, and a last one prints the whole table. One JSON
line last.
"""

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any

import torch

from recdistill.config import TeacherConfig
from recdistill.config.command_line import parse
from recdistill.runs.step_runs import entry_run
from recdistill.steps.inputs import data_of
from recdistill.steps.teacher import find_backbone, teacher

METRICS = ("val/ndcg_at_20", "test/ndcg_at_20", "val/ndcg_at_10", "test/ndcg_at_10")
BASELINE = "SASRec"
ROWS: dict[str, dict[str, Any]] = {"gate": {}, "K=1": {"experts": 1}}


def results_of(config: TeacherConfig, row: str) -> dict[str, float]:
    """Metrics of a teacher, or of the SASRec that it is trained over."""
    if row == BASELINE:
        return find_backbone(config, data_of(config)).metrics()
    return teacher(replace(config, **ROWS[row])).metrics()


def cell(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own number")
    arguments, rest = parser.parse_known_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    # Students read outputs; here the rankings of validation and test are what counts.
    options = replace(parse(TeacherConfig, "teacher", rest), outputs_token_budget=1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (BASELINE, *arguments.rows)}
    with entry_run("table"):
        for seed in arguments.seeds:
            for name, results in found.items():
                results.append(results_of(replace(options, seed=seed), name))
                print(f"seed {seed}, {name}: {', '.join(f'{m} {results[-1][m]:.4f}' for m in METRICS)}", flush=True)
    summary = {}
    header = ["", *METRICS, *(f"gain in {name} by seed" for name in METRICS[:2])]
    print(f"\n{len(arguments.seeds)} seeds {' '.join(rest)}\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for name, results in found.items():
        gains = {
            metric: [own[metric] - base[metric] for own, base in zip(results, found[BASELINE], strict=True)]
            for metric in METRICS[:2]
        }
        shown = [", ".join(f"{gain:+.4f}" for gain in of) if name != BASELINE else "" for of in gains.values()]
        print(f"| {name} | {' | '.join(cell([one[m] for one in results]) for m in METRICS)} | {' | '.join(shown)} |")
        summary[name] = {metric: round(statistics.mean(one[metric] for one in results), 4) for metric in METRICS}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
