"""What each step costs as interactions and items grow: seconds, peak memory, bytes an interaction.

``python benchmarks/growth.py`` makes logs of a power law, and for each size runs the steps in a process of its own:
reading and splitting, an epoch of each student, evaluation, scoring by a teacher, recommending. It prints a table and
one JSON line a size, and ``--results FILE`` adds the lines to a file. ``--table FILE`` prints the table of lines that
were kept, ``--figure FILE.svg`` draws their curves, and ``--check`` tells whether the goals are met; nothing is run.

Seconds are of the process's CPU, in one thread, so that a busy machine does not count. Reading and splitting are done
three times, behind a small log that loads the libraries, and the fastest counts. Students are trained as the product
trains them, by ``fit`` with averaged weights, a validation and a checkpoint, whose seconds are left out of the epoch's.
Steps of training, evaluation, scoring and recommending are measured on a part (``--samples``, ``--histories``) and
scaled to the whole; a line keeps how many there were. Memory is resident; a step's peak is its own where Linux lets
the mark be set back, else the process's so far. The full softmax stands where the catalogue has at most 20,000 items,
``sampled`` everywhere.
The teacher is a llama with random weights and 2 layers unless ``--llm`` names another: what it shows is how scoring
grows, not what an LLM costs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

SIZES = ((100_000, 10_000), (1_000_000, 10_000), (10_000_000, 10_000))
SIZES += ((100_000, 100_000), (1_000_000, 100_000), (10_000_000, 100_000), (10_000_000, 1_000_000))
LARGEST_SOFTMAX = 20_000
GRADIENT = ("sasrec", "esasrec", "gru4rec", "caser")
GOAL_RATIO, GOAL_GIB = 1.3, 8.0
# Interactions and items of the log that is read first, so that no library is loaded while the clock runs.
SMALL = (5_000, 500)
# Times that reading and splitting are done: the least counts.
TIMES = 3
# Samples of the validation behind a measured part of an epoch.
VALIDATED = 200
MIB = 1 << 20


def write_log(folder: Path, interactions: int, items: int, length: float, seed: int) -> None:
    """A log of users with power-law lengths over items with power-law popularity, in order of time, as Parquet.

    Args:
        folder: gets ``interactions.parquet`` and ``items.parquet``.
        interactions: N.
        items: V.
        length: mean interactions of a user.
        seed: of all draws.
    """
    import numpy as np
    import pyarrow
    import pyarrow.parquet as parquet

    random = np.random.default_rng(seed)
    users = max(20, int(interactions / length))
    weight = (1 - random.random(users)) ** (-1 / 1.5)  # Pareto
    share = np.maximum(3 / interactions, np.minimum(weight / weight.sum(), 2000 / interactions))
    bounds = np.cumsum(share / share.sum())
    user = np.searchsorted(bounds, random.random(interactions)).astype(np.int32)
    popularity = np.cumsum((np.arange(items) + 10.0) ** -1.0)
    item = np.searchsorted(popularity / popularity[-1], random.random(interactions)).astype(np.int32)
    item = random.permutation(items).astype(np.int32)[np.minimum(item, items - 1)]
    moment = np.sort(random.integers(1_500_000_000, 1_600_000_000, interactions))
    columns = {"user": np.minimum(user, users - 1), "item": item, "timestamp": moment}
    names = {
        "user": [f"user{number}" for number in range(users)],
        "item": [f"B{number:09d}" for number in range(items)],
    }
    texts = {name: pyarrow.array(ids).take(pyarrow.array(columns[name])) for name, ids in names.items()}
    parquet.write_table(pyarrow.table({**texts, "timestamp": moment}), folder / "interactions.parquet")
    titles = [f"title {number % 977} of item {number}" for number in range(items)]
    parquet.write_table(pyarrow.table({"item": names["item"], "title": titles}), folder / "items.parquet")


class Measured:
    """Seconds and memory of steps, by name."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self.peak = 0.0

    @contextmanager
    def step(self, name: str, scale: Callable[[], float] = lambda: 1.0) -> Iterator[None]:
        """Time what is done within, times ``scale``, and take its peak memory."""
        forget_peak()
        begun = time.process_time()
        yield
        self.keep(name, (time.process_time() - begun) * scale())

    def keep(self, name: str, seconds: float) -> None:
        """Keep a step's seconds and peak memory; of one done before, the least seconds and the most memory."""
        seconds = min(round(seconds, 4), self.found.get(f"{name}_s", float("inf")))
        peak = max(round(peak_mib()), self.found.get(f"{name}_peak_mib", 0))
        self.found |= {f"{name}_s": seconds, f"{name}_peak_mib": peak}
        self.peak = max(self.peak, peak)
        print(f"  {name}: {seconds:.1f} s, peak {peak:,.0f} MiB", flush=True)


def peak_mib() -> float:
    """The most memory that this process had, since `forget_peak` where the system has it."""
    from recdistill.training.resources import peak_resident

    return peak_resident() / MIB


def forget_peak() -> None:
    """Begin the peak memory of this process again at what it has now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident() -> int:
    """Bytes of memory that this process has."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def measure(arguments: argparse.Namespace, interactions: int, items: int) -> dict[str, Any]:
    """All steps over one size."""
    import torch

    from recdistill.data.load import load_data

    torch.set_num_threads(1)
    measured = Measured()
    with tempfile.TemporaryDirectory() as small:
        write_log(Path(small), *SMALL, arguments.length, arguments.seed)
        load_data(log_in(Path(small)))
    data = read_and_split(measured, log_in(arguments.folder / f"{interactions}x{items}"))
    about = {
        "interactions": interactions,
        "items": items,
        "users": len(data.user_ids),
        "train": data.num_trainable(True),
    }
    model = None
    for student in arguments.students:
        for loss in ("ce", "sampled"):
            if loss == "sampled" or items <= LARGEST_SOFTMAX:
                trained = epoch(measured, arguments, data, student, loss)
                if loss == "sampled" and student == arguments.students[0]:
                    model = trained
    measure_ranking(measured, arguments, data, model)
    if arguments.teacher_samples:
        score(measured, arguments, data, model)
    of_all = {"peak_gib": round(measured.peak / 1024, 2)}
    return about | measured.found | of_all | {"samples": arguments.samples, "histories": arguments.histories}


def log_in(folder: Path) -> Any:
    """The options that name the log of `write_log` in a folder."""
    from recdistill.config.data import DataConfig

    names = {name: str(folder / f"{name}.parquet") for name in ("interactions", "items")}
    return DataConfig(dataset="csv", **names)


def read_and_split(measured: Measured, config: Any) -> Any:
    """Read a log, and read and split it, several times each. Returns the split data.

    The bytes an interaction are of the first time, before memory that was freed is used again.
    """
    from recdistill.data.load import load_data, read_data

    before, made = resident(), None
    for _ in range(TIMES):
        # One at a time.
        made = None
        with measured.step("read"):
            made = read_data(config)
        measured.found.setdefault("read_bytes", round((resident() - before) / len(made), 1))
    interactions, made = len(made), None
    for _ in range(TIMES):
        made = None
        with measured.step("read_and_split"):
            made = load_data(config)
        measured.found.setdefault("split_bytes", round((resident() - before) / interactions, 1))
    return made


def epoch(measured: Measured, arguments: argparse.Namespace, data: Any, student: str, loss: str) -> Any:
    """An epoch of a student, measured on a part and scaled. Returns the student.

    The windows of the whole epoch are drawn with its first batch, and the optimiser's state is made then: once an
    epoch. The validation and the checkpoint behind it are in the peak memory and not in the seconds.
    """
    from recdistill.config import StudentConfig
    from recdistill.students.build import shape_of
    from recdistill.students.training import student_plan
    from recdistill.training.fit import fit
    from recdistill.training.recorder import NoRecorder

    config = StudentConfig(student=student, base_loss=loss, epochs=1, validation_samples=VALIDATED)
    samples = arguments.samples if loss == "sampled" else max(config.batch_size, arguments.samples // 4)
    before = resident()
    forget_peak()
    recorder = NoRecorder()
    model, plan = student_plan(config, data, shape_of(config), None, recorder)
    seconds: list[float] = []
    done = 0

    def part(number: int) -> Iterable[Any]:
        nonlocal done
        seconds.append(time.process_time())
        for batch in plan.batches(number):
            yield batch
            # The loop asks for the next batch when the step is done.
            seconds.append(time.process_time())
            done += len(batch) if len(seconds) > 2 else 0
            if done >= samples:
                break

    checkpoint = recorder.work / "student.safetensors"
    fit(replace(plan, batches=part, checkpoint_seconds=1e9), checkpoint, lambda metrics, number: None)
    once, rest = seconds[1] - seconds[0], seconds[-1] - seconds[1]
    name = f"epoch_{student}_{loss}"
    measured.keep(name, once + rest * data.num_trainable(config.exclude_seen) / done)
    peak = measured.found[f"{name}_peak_mib"]
    measured.found |= {
        f"{name}_samples": done,
        f"{name}_added_mib": round(peak - before / MIB),
        f"{name}_checkpoint_mib": round(checkpoint.stat().st_size / MIB, 1),
    }
    return model


def measure_ranking(measured: Measured, arguments: argparse.Namespace, data: Any, model: Any) -> None:
    """Evaluating the validation samples, and recommending to 10,000 users, each measured on a part."""
    import numpy as np
    import torch

    from recdistill.students.measure import ranks_of
    from recdistill.students.serving import ItemRecommender

    random = np.random.default_rng(0)
    count = min(arguments.histories, len(data.validation))
    part = data.validation.subset(np.sort(random.choice(len(data.validation), count, replace=False)))
    with measured.step("evaluate", lambda: len(data.validation) / count):
        ranks_of(model, part, True, torch.device("cpu"))
    served = ItemRecommender(model, data.item_ids, data.item_count.tolist())
    places = zip(part.start, part.end, strict=True)
    histories = [[data.item_ids[item] for item in part.items[start:end]] for start, end in places]
    with measured.step("recommend_10k", lambda: 10_000 / count):
        served.recommend(histories, [10] * count, [[]] * count)


def score(measured: Measured, arguments: argparse.Namespace, data: Any, backbone: Any) -> None:
    """A teacher's answers for 1,000 samples, measured on a part."""
    import torch

    from recdistill.config import TeacherConfig
    from recdistill.teachers.ilora.llm_source import load_llm
    from recdistill.teachers.ranking.lesson import training_batches
    from recdistill.teachers.ranking.teacher import RankingTeacher
    from recdistill.testing.tiny_llm import tiny_base_llm

    llm = load_llm(arguments.llm, torch.device("cpu")) if arguments.llm else tiny_base_llm()
    teacher = RankingTeacher.build(TeacherConfig(device="cpu"), llm, backbone.requires_grad_(False), data)
    teacher.model.eval()
    done = 0
    drawn = training_batches(teacher)
    with torch.inference_mode(), measured.step("teacher_1k", lambda: 1000 / done):
        while done < arguments.teacher_samples:
            batch = next(drawn)
            teacher.outputs(data.train, batch)[0].topk(min(100, data.num_items), dim=1, largest=False)
            done += len(batch)
    measured.found["teacher_samples"] = done


def in_a_process(arguments: argparse.Namespace, interactions: int, items: int) -> dict[str, Any]:
    """`measure` in a new process, so that its peak memory is its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(interactions), str(items)]
    command += ["--seed", str(arguments.seed), "--length", str(arguments.length)]
    command += ["--folder", str(arguments.folder), "--samples", str(arguments.samples), "--llm", arguments.llm]
    command += ["--histories", str(arguments.histories), "--teacher-samples", str(arguments.teacher_samples)]
    command += ["--students", *arguments.students]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    last = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        last = line
    if process.wait():
        raise SystemExit(f"{interactions:,} interactions, {items:,} items: ended with status {process.returncode}")
    return dict(json.loads(last))


COLUMNS = (
    ("interactions", "interactions", 1.0),
    ("items", "items", 1.0),
    ("read, s", "read_s", 1.0),
    ("read and split, s", "read_and_split_s", 1.0),
    ("bytes read", "read_bytes", 1.0),
    ("bytes split", "split_bytes", 1.0),
    ("SASRec, sampled, s an epoch", "epoch_sasrec_sampled_s", 1.0),
    ("SASRec, full softmax", "epoch_sasrec_ce_s", 1.0),
    ("eSASRec, sampled", "epoch_esasrec_sampled_s", 1.0),
    ("GRU4Rec, sampled", "epoch_gru4rec_sampled_s", 1.0),
    ("Caser, sampled", "epoch_caser_sampled_s", 1.0),
    ("evaluate, s", "evaluate_s", 1.0),
    ("recommend to 10,000, s", "recommend_10k_s", 1.0),
    ("teacher, s for 1,000", "teacher_1k_s", 1.0),
    ("SASRec trained, sampled, peak GiB", "epoch_sasrec_sampled_peak_mib", 1024.0),
    ("its checkpoint, GiB", "epoch_sasrec_sampled_checkpoint_mib", 1024.0),
    ("peak of all, GiB", "peak_gib", 1.0),
)


def table(lines: list[dict[str, Any]]) -> str:
    """The lines as a table in Markdown, a size a row; a dash where a step was not run."""
    rows = [[name for name, _, _ in COLUMNS], ["---:"] * len(COLUMNS)]
    for line in sorted(lines, key=lambda one: (one["items"], one["interactions"])):
        values = [None if key not in line else line[key] / unit for _, key, unit in COLUMNS]
        rows.append(["-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def checked(lines: list[dict[str, Any]]) -> str:
    """Whether the goals are met: cost an interaction at ten million against one million, and memory at a million.

    Raises ValueError where reading took longer than reading and splitting, which cannot be.
    """
    for line in lines:
        if line["read_s"] > line["read_and_split_s"]:
            size = f"{line['interactions']:,} interactions, {line['items']:,} items"
            raise ValueError(
                f"{size}: reading took {line['read_s']} s and, with splitting, {line['read_and_split_s']} s: "
                "something else was timed with it; measure this size again"
            )
    of = {(line["interactions"], line["items"]): line for line in lines}
    small, large = of.get((10**6, 10**5)), of.get((10**7, 10**5))
    said = []
    if small and large:
        for name, key, per in (
            ("reading", "read_s", 10),
            ("an epoch", "epoch_sasrec_sampled_s", 0),
            ("recommending", "recommend_10k_s", 1),
        ):
            count = per or large["train"] / small["train"]
            ratio = large[key] / small[key] / count
            said.append(f"{name}: {ratio:.2f} times the cost an interaction at a tenth (goal {GOAL_RATIO})")
    for line in (one for one in lines if one["items"] >= 10**6):
        size = f"{line['interactions']:,} interactions, {line['items']:,} items"
        said.append(f"{size}: peak {line['peak_gib']:.1f} GiB (goal {GOAL_GIB:.0f})")
    return "\n".join(said)


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Curves of seconds against interactions, a line a catalogue, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    steps = {
        "read and split": "read_and_split_s",
        "epoch of SASRec, sampled": "epoch_sasrec_sampled_s",
        "evaluate": "evaluate_s",
        "recommend to 10,000 users": "recommend_10k_s",
    }
    figure, axes = pyplot.subplots(1, len(steps), figsize=(13, 3.2), layout="constrained")
    for axis, (title, key) in zip(axes, steps.items(), strict=True):
        for items in sorted({line["items"] for line in lines}):
            points = sorted((line["interactions"], line[key]) for line in lines if line["items"] == items)
            axis.loglog(*zip(*points, strict=True), marker="o", label=f"{items:,} items")
        axis.set(title=title, xlabel="interactions", ylabel="CPU seconds")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The newest line of each size."""
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text.strip()]
    return list({(line["interactions"], line["items"]): line for line in lines}.values())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What each step costs as interactions and items grow.")
    parser.add_argument("--sizes", nargs="*", metavar="NxV", help="such as 1000000x100000; all of the document's")
    parser.add_argument("--samples", type=int, default=200_000, help="training samples measured; of ce a quarter")
    parser.add_argument("--histories", type=int, default=3_000, help="histories evaluated and recommended to")
    parser.add_argument("--teacher-samples", type=int, default=1_000, help="samples scored by a teacher, 0 for none")
    parser.add_argument("--llm", default="", help="alias, id or path of the teacher's LLM; empty: 2 random layers")
    parser.add_argument("--students", nargs="*", default=list(GRADIENT), help="trained students")
    parser.add_argument("--length", type=float, default=20.0, help="mean interactions of a user")
    parser.add_argument("--seed", type=int, default=0, help="of the logs")
    parser.add_argument("--folder", type=Path, help="where logs are kept; empty: a scratch folder")
    parser.add_argument("--results", type=Path, help="file that the JSON lines are added to")
    parser.add_argument("--table", type=Path, help="print the table of a file of lines, and run nothing")
    parser.add_argument("--figure", type=Path, help="with --table: draw its curves")
    parser.add_argument("--check", action="store_true", help="with --table: say whether the goals are met")
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(arguments: argparse.Namespace, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Make each log, measure it, and keep its line."""
    lines = []
    for interactions, items in sizes:
        print(f"{interactions:,} interactions, {items:,} items", flush=True)
        folder = arguments.folder / f"{interactions}x{items}"
        if not folder.is_dir():
            # In a process of its own: where a process inherits the peak memory of its parent, this one stays small.
            command = [sys.executable, str(Path(__file__).resolve()), "--write", str(interactions), str(items)]
            command += ["--seed", str(arguments.seed), "--length", str(arguments.length)]
            subprocess.run([*command, "--folder", str(arguments.folder)], check=True)
        lines.append(in_a_process(arguments, interactions, items))
        if arguments.results:
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    return lines


def main() -> None:
    arguments = parse_arguments()
    if arguments.write:
        interactions, items = arguments.write
        folder = arguments.folder / f"{interactions}x{items}"
        folder.mkdir(parents=True)
        write_log(folder, interactions, items, arguments.length, arguments.seed)
        return
    if arguments.measure:
        print(json.dumps(measure(arguments, *arguments.measure) | {"teacher": arguments.llm or "random, 2 layers"}))
        return
    if arguments.table:
        lines = read_lines(arguments.table)
        print(table(lines))
        if arguments.check:
            try:
                print(checked(lines))
            except ValueError as error:
                raise SystemExit(f"{arguments.table}: {error}") from None
        if arguments.figure:
            draw(lines, arguments.figure)
        return
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes or ()] or list(SIZES)
    with tempfile.TemporaryDirectory() as scratch:
        arguments.folder = arguments.folder or Path(scratch)
        print(table(run(arguments, sizes)))


if __name__ == "__main__":
    main()
