"""What ten seeds of a student cost on a CPU: in turn, in processes of one thread each, and as one batched model.

``python benchmarks/seeds.py`` trains a SASRec and a GRU4Rec on made-up histories of ML-100K's shape (943 users, 100,000
interactions, 1,682 items), so many steps a seed, in four ways that take turns, each in processes of its own that have
warmed up before the clock starts:

- ``in turn``: one process, all threads, one seed after the other; the package's own step
- ``processes``: a process a core, one thread each, the seeds divided among them; the package's own step
- ``plain in turn``: as the first, a step that `torch.func` can batch: scores of all items held, torch's dropout
- ``batched``: the same step for all seeds at once, by `torch.func.stack_module_state` and `torch.func.vmap`

Of each the fastest turn counts, by two clocks: wall-clock seconds, which other work on the machine lengthens, most of
all where two threads wait for each other; and CPU seconds of the thread that trains, the longest of the processes,
which is what the wall clock would show on an idle machine, or a little less where threads wait. It prints a table and
one JSON line a student, with ``processes`` as a share of ``in turn`` and ``batched`` as a share of ``plain in turn``,
and how far the weights of the batched seeds are from those of the seeds trained alone (without dropout).

``--device cuda`` measures the batched model alone: the seconds of all its seeds as a share of those of one seed.
"""

import argparse
import json
import multiprocessing
import os
import time
from typing import Any

from student_step import made_up_data  # in the same folder

ITEMS = 1682
GOAL = 0.6
#: Of all seeds batched on a GPU, as a share of one.
GPU_GOAL = 1.5
WARM_UP = 3


def product(task: tuple[str, list[int], int, int]) -> tuple[float, str]:
    """Train seeds in turn, so many steps each, as the package does. Returns CPU seconds of this thread, and nothing."""
    import torch

    from recdistill.config import StudentConfig
    from recdistill.students.build import shape_of
    from recdistill.students.training import student_plan
    from recdistill.training.recorder import NoRecorder

    student, seeds, steps, threads = task
    torch.set_num_threads(threads)
    data = data_of_process()
    begun = time.thread_time()
    for seed in seeds:
        config = StudentConfig(student=student, seed=seed)
        recorder: Any = NoRecorder()
        _, plan = student_plan(config, data, shape_of(config), None, recorder)
        plan.module.train()
        drawn = (batch for epoch in range(10**6) for batch in plan.batches(epoch))
        for _ in range(steps):
            plan.step(next(drawn))["total"].backward()
            plan.optimizer.step()
            plan.optimizer.zero_grad(set_to_none=True)
    return time.thread_time() - begun, ""


_data: list[Any] = []


def data_of_process() -> Any:
    """The histories, made once a process."""
    if not _data:
        _data.append(made_up_data(ITEMS))
    return _data[0]


def plain_model(student: str, seed: int, dropout: float) -> Any:
    """A student with torch's dropout."""
    import torch
    from torch import nn

    from recdistill.config import StudentConfig
    from recdistill.students.build import build_student, shape_of
    from recdistill.students.dropout import Dropout

    torch.manual_seed(seed)
    model = build_student(shape_of(StudentConfig(student=student, dropout=dropout)), ITEMS)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.probability))
    return model.train()


class Windows:
    """Windows of equal shape for each seed and step: history [W, L], and a target at each of its columns."""

    def __init__(self, device: str) -> None:
        import torch

        from recdistill.config import StudentConfig

        config = StudentConfig()
        self.length = config.max_length
        self.windows = max(1, config.batch_size // self.length)
        samples = data_of_process().train
        self.flat = torch.as_tensor(samples.items)
        self.device = device
        self.row = torch.arange(self.windows, device=device).repeat_interleave(self.length)
        self.column = torch.arange(self.length, device=device).repeat(self.windows)
        self.lengths = torch.full((self.windows,), self.length, device=device)

    def of(self, seed: int, step: int) -> tuple[Any, Any]:
        """History [W, L] and targets [S] of a seed's step."""
        import torch

        draw = torch.Generator().manual_seed(10_000 * seed + step)
        start = torch.randint(len(self.flat) - self.length - 1, (self.windows,), generator=draw)
        taken = self.flat[start.unsqueeze(1) + torch.arange(self.length + 1)]
        taken = taken.to(self.device)
        return taken[:, :-1].contiguous(), taken[:, 1:].flatten()


def plain_in_turn(
    student: str, seeds: list[int], steps: int, dropout: float, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Train seeds in turn with the plain step. Returns the parameters of each."""
    import torch
    import torch.nn.functional as F

    windows, found = Windows(device), []
    for seed in seeds:
        model = plain_model(student, seed, dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        for step in range(steps):
            history, target = windows.of(seed, step)
            states = model(history, windows.lengths, windows.row, windows.column)
            F.cross_entropy(model.logits(states), target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        found.append({name: value.detach() for name, value in model.named_parameters()})
    return found


def batched(student: str, seeds: list[int], steps: int, dropout: float, device: str = "cpu") -> dict[str, Any]:
    """Train all seeds at once with the plain step. Returns the parameters, stacked."""
    import copy

    import torch
    import torch.nn.functional as F

    windows = Windows(device)
    models = [plain_model(student, seed, dropout).to(device) for seed in seeds]
    parameters, buffers = torch.func.stack_module_state(models)
    shell = copy.deepcopy(models[0])
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-3, fused=True)

    class Scored(torch.nn.Module):
        """States and scores in one call, as `torch.func.functional_call` makes it."""

        def __init__(self) -> None:
            super().__init__()
            self.student = shell

        def forward(self, history: Any) -> Any:
            return self.student.logits(self.student(history, windows.lengths, windows.row, windows.column))

    scored = Scored()

    def loss(own: dict[str, Any], fixed: dict[str, Any], history: Any, target: Any) -> Any:
        named = {f"student.{name}": value for name, value in (own | fixed).items()}
        return F.cross_entropy(torch.func.functional_call(scored, named, (history,)), target)

    losses = torch.func.vmap(loss, randomness="different")
    for step in range(steps):
        drawn = [windows.of(seed, step) for seed in seeds]
        history, target = (torch.stack(part) for part in zip(*drawn, strict=True))
        losses(parameters, buffers, history, target).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in parameters.items()}


def plain(task: tuple[str, str, list[int], int, int]) -> tuple[float, str]:
    """Train by the plain step, in turn or batched. Returns CPU seconds of this thread, and why it cannot be, if so."""
    import torch

    way, student, seeds, steps, threads = task
    torch.set_num_threads(threads)
    begun = time.thread_time()
    try:
        (batched if way == "batched" else plain_in_turn)(student, seeds, steps, 0.2)
    except RuntimeError as error:
        return 0.0, str(error).splitlines()[0]
    return time.thread_time() - begun, ""


def largest_difference(student: str) -> float | str:
    """The largest difference of a weight between seeds trained batched and alone, without dropout, after ten steps."""
    seeds, steps = [1, 2, 3], 10
    try:
        together = batched(student, seeds, steps, 0.0)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    alone = plain_in_turn(student, seeds, steps, 0.0)
    return max(float((together[name][i] - own[name]).abs().max()) for i, own in enumerate(alone) for name in own)


def timed(pool: Any, function: Any, tasks: list[Any], warm: list[Any]) -> tuple[float, float, str]:
    """Wall-clock seconds of the tasks in a pool that has warmed up, CPU seconds of the longest, and why one refused."""
    pool.map(function, warm, chunksize=1)
    begun = time.perf_counter()
    found = pool.map(function, tasks, chunksize=1)
    took = time.perf_counter() - begun
    return took, max(cpu for cpu, _ in found), found[0][1]


def measure(student: str, seeds: list[int], steps: int, cores: int, turns: int) -> dict[str, Any]:
    """Seconds of each way by both clocks, and their ratios."""
    context = multiprocessing.get_context("spawn")
    taken: dict[str, list[tuple[float, float, str]]] = {}
    shares = [seeds[start::cores] for start in range(cores)]
    ways: dict[str, tuple[Any, list[Any], list[Any]]] = {
        "in turn": (product, [(student, seeds, steps, cores)], [(student, [1], WARM_UP, cores)]),
        "processes": (
            product,
            [(student, share, steps, 1) for share in shares],
            [(student, [1], WARM_UP, 1)] * (2 * cores),
        ),
    }
    for way in ("plain in turn", "batched"):
        ways[way] = plain, [(way, student, seeds, steps, cores)], [(way, student, seeds, WARM_UP, cores)]
    with context.Pool(1) as one, context.Pool(cores) as several:
        for _ in range(turns):
            for way, (function, tasks, warm) in ways.items():
                pool = several if way == "processes" else one
                taken.setdefault(way, []).append(timed(pool, function, tasks, warm))
        apart = one.apply(largest_difference, (student,))
    result: dict[str, Any] = {}
    for clock, name in enumerate(("wall", "cpu")):
        best = {way: min(float(one[clock]) for one in found) for way, found in taken.items()}
        result |= {f"{way}, {name} s": round(took, 2) for way, took in best.items()}
        result[f"processes / in turn, {name}"] = round(best["processes"] / best["in turn"], 3)
        refused = taken["batched"][0][2]
        result[f"batched / plain in turn, {name}"] = refused or round(best["batched"] / best["plain in turn"], 3)
    return result | {"largest difference": apart}


def share_of_one_seed(student: str, seeds: list[int], steps: int, device: str) -> float | str:
    """Seconds of all seeds batched as a share of those of one seed, both by the plain step on a device."""
    import torch

    def seconds(function: Any, trained: list[int], count: int) -> float:
        begun = time.perf_counter()
        function(student, trained, count, 0.2, device)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    try:
        for function, trained in ((plain_in_turn, seeds[:1]), (batched, seeds)):
            seconds(function, trained, WARM_UP)
        return round(seconds(batched, seeds, steps) / seconds(plain_in_turn, seeds[:1], steps), 2)
    except RuntimeError as error:
        return str(error).splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "", allow_abbrev=False)
    parser.add_argument("--students", nargs="+", default=["sasrec", "gru4rec"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40, help="of each seed")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="", help="measure the batched model alone, on this device")
    arguments = parser.parse_args()
    if arguments.device:
        for student in arguments.students:
            share = share_of_one_seed(student, list(range(1, arguments.seeds + 1)), arguments.steps, arguments.device)
            row = {"student": student, "seeds": arguments.seeds, "batched / one seed": share}
            print(json.dumps(row | {"device": arguments.device, "goal": GPU_GOAL}), flush=True)
        return
    os.environ.pop("OMP_NUM_THREADS", None)
    # A thread that waits sleeps, so that its CPU seconds are work; on an idle machine this costs little.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    seeds = list(range(1, arguments.seeds + 1))
    for student in arguments.students:
        found = measure(student, seeds, arguments.steps, arguments.cores, arguments.turns)
        for name, value in found.items():
            print(f"{student:>10} {name:>32} {value}", flush=True)
        met = found["processes / in turn, cpu"] <= GOAL
        row = {"student": student, "seeds": arguments.seeds, "steps": arguments.steps, "cores": arguments.cores}
        print(json.dumps(row | found | {"goal": GOAL, "met": met}), flush=True)


if __name__ == "__main__":
    main()
