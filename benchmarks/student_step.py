"""Time training steps of a student without a teacher, or distilled: positions with a loss a CPU second, peak memory.

``python benchmarks/student_step.py`` trains on made-up histories of ML-100K's shape (943 users, 100,000 interactions),
over 1,682 and over 20,000 items, and prints a table and one JSON line a row. ``--against FOLDER`` (another checkout, as
of ``git archive``) times its package in turns with this one, each turn a process of its own, so that both see the same
machine; of each the fastest step counts. The clock is that of the thread, one thread is used, and peak memory is what
the process held more than before its first step. Options of ``distill`` follow, as ``--dropout 0 --mask_seen false``;
``--distilled`` trains with a made-up teacher.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

CATALOGUES = (1682, 20_000)
USERS, INTERACTIONS = 943, 100_000
WARM_UP = 3


def measure(arguments: argparse.Namespace, given: list[str], num_items: int) -> dict[str, float]:
    """Positions a CPU second and peak MiB of the package that is imported."""
    import torch

    from recdistill.config import DistillConfig, StudentConfig, narrow
    from recdistill.config.command_line import parse
    from recdistill.distillation.objective import build_objective
    from recdistill.students import training
    from recdistill.students.build import shape_of
    from recdistill.training.recorder import NoRecorder

    torch.set_num_threads(1)
    options = parse(DistillConfig, "distill", given)
    config = options if arguments.distilled else narrow(options, StudentConfig)
    data, teacher = made_up_data(num_items), None
    torch.manual_seed(config.seed)
    if arguments.distilled:
        teacher = made_up_teacher(len(data.train), num_items, config.candidate_topk, arguments.teacher_size)
    model = training.initial_student(config, shape_of(config), num_items, teacher)
    selection = training.selection_of(config, data, model, teacher, NoRecorder())
    if selection is not None:
        selection.begin_epoch(0)
    objective = build_objective(config, torch.as_tensor(data.item_count), state_size=model.state_size, teacher=teacher)
    trained = torch.nn.ModuleDict({"student": model, "extra": objective}).train()
    optimizer = (
        training.optimizer_of(config, trained)
        if hasattr(training, "optimizer_of")
        else torch.optim.Adam(trained.parameters(), lr=config.learning_rate, fused=True)
    )
    step = training.loss_step(config, data, model, objective, selection, torch.device("cpu"))
    # Where batches are drawn counts too.
    drawn = training.student_batches(config, data, model.causal)(0)
    rates, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(WARM_UP + arguments.steps):
        begun = time.thread_time()
        batch = next(drawn)
        step(batch)["total"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rates.append(len(batch) / (time.thread_time() - begun))
    del rates[:WARM_UP]
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"fastest": max(rates), "median": statistics.median(rates), "peak_mib": peak}


def made_up_data(num_items: int):  # type: ignore[no-untyped-def]
    """Histories whose lengths and popularities fall off as ML-100K's do."""
    import numpy as np

    from recdistill.config import DataConfig
    from recdistill.data.interactions import Interactions
    from recdistill.data.load import split_data

    random = np.random.default_rng(0)
    lengths = random.lognormal(4.2, 0.9, USERS)
    lengths = np.clip(lengths * INTERACTIONS / lengths.sum(), 20, 700).astype(np.int64)
    popularity = 1 / (np.arange(num_items) + 30.0)
    drawn = [random.choice(num_items, size, replace=False, p=popularity / popularity.sum()) for size in lengths]
    return split_data(
        Interactions(
            user=np.repeat(np.arange(USERS), lengths),
            item=np.concatenate(drawn),
            timestamp=np.concatenate([np.arange(size) for size in lengths]),
            user_ids=tuple(map(str, range(USERS))),
            item_ids=tuple(map(str, range(num_items))),
            titles=tuple(map(str, range(num_items))),
            source="made up",
        ),
        DataConfig(split="leave-one-out"),
    )


def made_up_teacher(samples: int, num_items: int, candidates: int, width: int):  # type: ignore[no-untyped-def]
    """A teacher that covers every second sample."""
    import torch

    from recdistill.distillation.teacher_answers import TeacherAnswers

    generator = torch.Generator().manual_seed(0)
    covered = torch.arange(samples) % 2 == 0
    return TeacherAnswers(
        covered=covered,
        ranking=torch.randint(num_items, (samples, candidates), generator=generator),
        distance=torch.rand(samples, candidates, generator=generator).sort(dim=1).values,
        item_embedding=torch.randn(num_items, width, generator=generator),
        sample=covered.nonzero().squeeze(1),
        covered_share=0.5,
    )


def in_a_process(folder: Path, arguments: argparse.Namespace, given: list[str], num_items: int) -> dict[str, float]:
    """`measure` of the package in a folder, in a new process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(num_items)]
    command += ["--steps", str(arguments.steps), "--teacher-size", str(arguments.teacher_size)]
    command += ["--distilled"] * arguments.distilled + given
    environment = os.environ | {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "", allow_abbrev=False)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--catalogues", type=int, nargs="+", default=list(CATALOGUES))
    parser.add_argument("--steps", type=int, default=30, help="timed steps a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--distilled", action="store_true")
    parser.add_argument("--teacher-size", type=int, default=256, help="E, of the made-up teacher's item embedding")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments, given = parser.parse_known_args()
    if arguments.measure:
        print(json.dumps(measure(arguments, given, arguments.measure)))
        return
    folders = {"this": Path(__file__).resolve().parents[1]}
    folders |= {"before": arguments.against} if arguments.against else {}
    print(f"{'items':>8}{'package':>10}{'positions/s':>14}{'median':>10}{'peak MiB':>10}   {' '.join(given)}")
    for num_items in arguments.catalogues:
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
        for _ in range(arguments.turns):
            for name, folder in folders.items():
                turns[name].append(in_a_process(folder, arguments, given, num_items))
        for name, found in turns.items():
            fastest, peak = max(one["fastest"] for one in found), min(one["peak_mib"] for one in found)
            median = statistics.median(one["median"] for one in found)
            print(f"{num_items:>8}{name:>10}{fastest:>14,.0f}{median:>10,.0f}{peak:>10,.0f}", flush=True)
            row = {"items": num_items, "package": name, "positions_per_second": round(fastest), "peak_mib": round(peak)}
            print(json.dumps(row | {"median": round(median), "options": given}), flush=True)


if __name__ == "__main__":
    main()
