"""What ten seeds of a student cost on a CPU: in turn, in processes of one thread each, and as one batched model.

``python benchmarks/seeds.py`` trains a SASRec and a GRU4Rec on made-up histories of ML-100K's shape (943 users, 100,000
interactions, 1,682 items), so many steps a seed, in three ways that take turns, each in processes of its own that have
warmed up before the clock starts:

- ``in turn``: one process, all threads, one seed after the other
- ``processes``: a process a core, one thread each, the seeds divided among them
- ``together``: one process, all threads, all seeds as one batched model, as a sweep's ``final_together`` trains them

Of each the fastest turn counts, by two clocks: wall-clock seconds, which other work on the machine lengthens, most of
all where two threads wait for each other; and CPU seconds of the threads that train, the longest of the processes,
which is what the wall clock would show on an idle machine, or a little less where threads wait. It prints a table and
one JSON line a student, with the other ways as shares of ``in turn``, and how far the weights of seeds trained together
are from those of the seeds alone (without dropout).

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


def trained(student: str, seed: int, steps: int, device: str, dropout: float = 0.2, member: Any = None) -> Any:
    """Train a seed so many steps as the package does. Returns its parameters, and when it was warm and had ended."""
    import torch

    from recdistill.config import StudentConfig
    from recdistill.students.build import shape_of
    from recdistill.students.training import student_plan
    from recdistill.training.recorder import NoRecorder

    config = StudentConfig(student=student, seed=seed, device=device, dropout=dropout)
    recorder: Any = NoRecorder()
    _, plan = student_plan(config, data_of_process(), shape_of(config), None, recorder, member=member)
    plan.module.train()
    drawn, moments = (batch for epoch in range(10**6) for batch in plan.batches(epoch)), []
    for step in range(steps):
        if step == min(WARM_UP, steps - 1):
            moments.append(moment(torch, device))
        plan.step(next(drawn))["total"].backward()
        plan.optimizer.step()
        plan.optimizer.zero_grad(set_to_none=True)
    return {name: one.detach().clone() for name, one in plan.parameters.items()}, moments[0], moment(torch, device)


def moment(torch: Any, device: str) -> float:
    """The wall clock, when the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(student: str, seeds: list[int], steps: int, device: str, dropout: float = 0.2) -> tuple[list[Any], float]:
    """What `trained` gives of each seed, and the CPU seconds of this thread."""
    begun = time.thread_time()
    found = [trained(student, seed, steps, device, dropout) for seed in seeds]
    return found, time.thread_time() - begun


def together(student: str, seeds: list[int], steps: int, device: str, dropout: float = 0.2) -> tuple[list[Any], float]:
    """The same of all seeds as one batched model; the CPU seconds are those of all its threads."""
    from recdistill.config import StudentConfig
    from recdistill.students.together import check_together, train_together

    check_together(StudentConfig(student=student))
    begun, spent = time.thread_time(), []

    def train(place: int, member: Any) -> Any:
        found = trained(student, seeds[place], steps, device, dropout, member)
        spent.append(time.thread_time())
        return found

    found = train_together(seeds, train)
    return found, time.thread_time() - begun + sum(spent)


def seconds_of(task: tuple[str, str, list[int], int, int]) -> tuple[float, str]:
    """Train in turn or together. Returns CPU seconds, and why it cannot be, if so."""
    import torch

    from recdistill.errors import InputError

    way, student, seeds, steps, threads = task
    torch.set_num_threads(threads)
    try:
        return (together if way == "together" else in_turn)(student, seeds, steps, "cpu")[1], ""
    except InputError as error:
        return 0.0, str(error)


_data: list[Any] = []


def data_of_process() -> Any:
    """The histories, made once a process."""
    if not _data:
        _data.append(made_up_data(ITEMS))
    return _data[0]


def largest_difference(student: str) -> float | str:
    """The largest difference of a weight between seeds trained together and alone, without dropout, after ten steps."""
    from recdistill.errors import InputError

    seeds, steps = [1, 2, 3], 10
    try:
        batched = together(student, seeds, steps, "cpu", 0.0)[0]
    except InputError as error:
        return str(error)
    alone = in_turn(student, seeds, steps, "cpu", 0.0)[0]
    pairs = [(ours[0], theirs[0]) for ours, theirs in zip(batched, alone, strict=True)]
    return max(float((ours[name] - theirs[name]).abs().max()) for ours, theirs in pairs for name in ours)


def timed(pool: Any, function: Any, tasks: list[Any], warm: list[Any]) -> tuple[float, float, str]:
    """Wall-clock seconds of the tasks in a pool that has warmed up, CPU seconds of the longest, and why one refused."""
    pool.map(function, warm, chunksize=1)
    begun = time.perf_counter()
    found = pool.map(function, tasks, chunksize=1)
    took = time.perf_counter() - begun
    return took, max(cpu for cpu, _ in found), found[0][1]


def measure(student: str, seeds: list[int], steps: int, cores: int, turns: int) -> dict[str, Any]:
    """Seconds of each way by both clocks, and their shares of those in turn."""
    context = multiprocessing.get_context("spawn")
    taken: dict[str, list[tuple[float, float, str]]] = {}
    groups = {"in turn": [seeds], "processes": [seeds[start::cores] for start in range(cores)], "together": [seeds]}
    with context.Pool(1) as one, context.Pool(cores) as several:
        for _ in range(turns):
            for way, shares in groups.items():
                pool, threads = (several, 1) if way == "processes" else (one, cores)
                tasks = [(way, student, share, steps, threads) for share in shares]
                # Each process of the pool is to get one.
                warm = [(way, student, seeds[:2], WARM_UP, threads)] * (2 * len(shares))
                taken.setdefault(way, []).append(timed(pool, seconds_of, tasks, warm))
        apart = one.apply(largest_difference, (student,))
    result: dict[str, Any] = {}
    for clock, name in enumerate(("wall", "cpu")):
        best = {way: min(float(one[clock]) for one in found) for way, found in taken.items()}
        result |= {f"{way}, {name} s": round(took, 2) for way, took in best.items()}
        for way in ("processes", "together"):
            result[f"{way} / in turn, {name}"] = taken[way][0][2] or round(best[way] / best["in turn"], 3)
    return result | {"largest difference": apart}


def share_of_one_seed(student: str, seeds: list[int], steps: int, device: str) -> float | str:
    """Seconds of all seeds together as a share of those of one seed, both on a device, behind some steps."""
    from recdistill.errors import InputError

    def seconds(found: list[Any]) -> float:
        return max(ended for _, _, ended in found) - min(begun for _, begun, _ in found)

    try:
        batched = seconds(together(student, seeds, WARM_UP + steps, device)[0])
    except InputError as error:
        return str(error)
    return round(batched / seconds(in_turn(student, seeds[:1], WARM_UP + steps, device)[0]), 2)


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
            row = {"student": student, "seeds": arguments.seeds, "together / one seed": share}
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
