"""Time a distillation step of SASRec against the plain formulas of `recdistill.distillation.losses`, on random data.

Run ``python benchmarks/distill_step.py`` (``--help`` lists the sizes). It prints the share of each part, and
one JSON line last: ``step_ms`` and ``plain_step_ms`` (medians), their ``ratio``, ``evaluate_s`` for 14,980
sequences ranked over all items, and ``peak_mib``, the most memory that the process held before the plain step
was built, the teacher's table included. Times are of CPU with ``--threads 1``, of the clock else; the load is printed,
and so is the fastest step. What a wide teacher costs is the difference to ``--teacher-size 64``. With ``--texts 128``
the teacher is a view that the item embeddings start from, and no step reads its wide table. ``--output tied`` scores by
the item embeddings, so that a step over all items reads all of the teacher's table, and ``--base-loss sampled`` draws
1,024 negatives. ``--rank 256`` injects so many directions of the teacher's table. With any of the four only the step is
timed.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from recdistill.data.samples import Samples
from recdistill.distillation.losses import plain_loss
from recdistill.distillation.negatives import Negatives, NegativeSampler
from recdistill.distillation.objective import Objective
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.projection import factored
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.evaluation.evaluate import rank_samples
from recdistill.students.build import StudentShape, build_student
from recdistill.students.student import Student
from recdistill.students.text_vectors import TextVectors
from recdistill.training.resources import peak_resident
from recdistill.training.row_adam import RowAdam

# The README run of DLLM2Rec's release.
SETTINGS = ObjectiveSettings(
    base_loss="bce", alpha=0.5, beta=1.0, lam=0.7, gamma_position=0.3, gamma_confidence=0.5, gamma_consistency=0.1
)
ED_WEIGHT = 0.3
NEGATIVES = 1024
PARTS = ("encode", "loss", "backward", "adam")


def seconds() -> float:
    """CPU seconds in one thread, which other work on the machine disturbs least, and those of the clock with more."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@dataclass(frozen=True)
class Problem:
    """One batch: histories [B, L], and for each sample a target, a negative and the teacher's K candidates."""

    history: Tensor
    length: Tensor
    target: Tensor
    negative: Tensor
    teacher: TeacherBatch
    # Of a sampled loss: what was drawn, and the items in use.
    negatives: Negatives | None = None
    ids: Tensor | None = None


LossFunction = Callable[[Tensor, OutputLayer, Problem], Tensor]


class PlainItems(nn.Module):
    """``ItemEmbedding`` by its formula: the E-wide teacher embedding is gathered at every position."""

    def __init__(self, student: Student, teacher: Tensor) -> None:
        super().__init__()
        assert student.items.projection is not None
        self.hidden_size = student.items.hidden_size
        self.num_items = student.items.num_items
        self.embedding = student.items.embedding
        self.projection = student.items.projection
        self.teacher = torch.cat([teacher.float(), torch.zeros(1, teacher.shape[1])])

    def forward(self, items: Tensor) -> Tensor:
        injected = ED_WEIGHT * self.projection(self.teacher[items])
        return self.embedding(items) + injected * (items != self.num_items).unsqueeze(-1)


def trained_total(objective: Objective, states: Tensor, output: OutputLayer, batch: Problem) -> Tensor:
    """The objective as it is trained."""
    drawn = {"negatives": batch.negatives} if batch.negatives is not None else {"negative": batch.negative}
    return objective.of_states(states, output, batch.target, batch.teacher, **drawn)["total"]


def plain_total(objective: Objective, states: Tensor, output: OutputLayer, batch: Problem) -> Tensor:
    """The formulas as written: a loop over candidates, each with its own pass over the vocabulary."""
    weight, logits = objective.propensity, output.logits(states)
    losses = plain_loss(
        objective.settings, logits, batch.target, batch.teacher, negative=batch.negative, propensity=weight
    )
    return losses["total"]


def train_step(student: Student, optimizer: torch.optim.Optimizer, loss: LossFunction, batch: Problem) -> list[float]:
    """Seconds of each of `PARTS`, for one step."""
    clock = [seconds()]
    row = torch.arange(len(batch.target))
    states, output = student.encoded(batch.history, batch.length, row, batch.length - 1, batch.ids)
    clock.append(seconds())
    total = loss(states, output, batch)
    clock.append(seconds())
    optimizer.zero_grad()
    total.backward()
    clock.append(seconds())
    optimizer.step()
    clock.append(seconds())
    return [end - start for start, end in itertools.pairwise(clock)]


def time_steps(run: Callable[[], list[float]], steps: int, warm_up: int) -> tuple[float, float, list[float]]:
    """Median and least milliseconds of a step, and the median of each part."""
    for _ in range(warm_up):
        run()
    times = [run() for _ in range(steps)]
    parts = [1e3 * statistics.median(part) for part in zip(*times, strict=True)]
    totals = [1e3 * sum(step) for step in times]
    return statistics.median(totals), min(totals), parts


def random_batch(arguments: argparse.Namespace, generator: torch.Generator) -> Problem:
    """Histories of full length: the most work that a batch can be."""
    items, batch, count = arguments.items, arguments.batch, arguments.candidates

    def ids(*shape: int) -> Tensor:
        return torch.randint(items, shape, generator=generator)

    return Problem(
        history=ids(batch, arguments.length),
        length=torch.full((batch,), arguments.length),
        target=ids(batch),
        negative=ids(batch),
        teacher=TeacherBatch(
            candidates=ids(batch, count),
            distance=torch.rand(batch, count, generator=generator),
            distilled=torch.ones(batch, dtype=torch.bool),
        ),
    )


def with_negatives(batch: Problem, sampler: NegativeSampler, num_items: int) -> Problem:
    """The batch with drawn negatives, and the items that it uses."""
    drawn, padding = sampler.draw(), torch.tensor([num_items])
    used = (batch.history, batch.target, batch.teacher.candidates, drawn.items, padding)
    return replace(batch, negatives=drawn, ids=torch.cat([one.flatten() for one in used]).unique())


def seconds_to_evaluate(student: Student, arguments: argparse.Namespace) -> float:
    """Seconds to rank the target of each of so many sequences among all items."""
    sequences, length = arguments.sequences, arguments.length
    start = np.arange(sequences) * (length + 1)
    items = np.random.default_rng(0).integers(arguments.items, size=sequences * (length + 1))
    samples = Samples(items, start, start + length, np.arange(sequences))
    student.eval()
    begun = seconds()
    rank_samples(
        lambda history, lengths, row, column: student.logits(student(history, lengths, row, column)),
        samples,
        num_items=arguments.items,
        max_length=length,
    )
    taken = seconds() - begun
    student.train()
    return taken


def print_parts(parts: list[float], plain_parts: list[float]) -> None:
    """A table of the milliseconds of each of `PARTS`, and its share of the step, beside those of the plain step."""
    print(f"{'part':<10}{'step ms':>10}{'share':>8}{'plain ms':>10}{'share':>8}")
    for name, part, plain_part in zip(PARTS, parts, plain_parts, strict=True):
        share, plain_share = part / sum(parts), plain_part / sum(plain_parts)
        print(f"{name:<10}{part:>10.1f}{share:>8.0%}{plain_part:>10.1f}{plain_share:>8.0%}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time a distillation step against the plain formulas.")
    for name, default, text in (
        ("items", 17408, "V"),
        ("batch", 256, "B, samples a step"),
        ("candidates", 10, "K, teacher candidates a sample"),
        ("teacher-size", 4096, "E"),
        ("texts", 0, "K, numbers an item that embeddings start from (item_init=views); then nothing is injected"),
        ("rank", 0, "R, directions of the teacher's table that are injected (ed_rank); 0: all"),
        ("hidden-size", 64, "D"),
        ("length", 10, "L, history items"),
        ("sequences", 14980, "sequences to evaluate"),
        ("steps", 40, "timed steps"),
        ("plain-steps", 10, "timed plain steps"),
        ("threads", 0, "0 for torch's own number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--output", choices=("linear", "tied"), default="linear", help="what scores (default linear)")
    parser.add_argument("--base-loss", choices=("bce", "ce", "sampled"), default="bce", help="(default bce)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(arguments.items, arguments.teacher_size, generator=generator, dtype=torch.bfloat16)
    shape = StudentShape(
        student="sasrec",
        hidden_size=arguments.hidden_size,
        dropout=0.1,
        max_length=arguments.length,
        output=arguments.output,
        options={"blocks": 1, "heads": 1},
    )
    if arguments.texts:
        vectors = torch.randn(arguments.items, arguments.texts, generator=generator)
        texts = TextVectors(vectors, torch.ones(arguments.items, dtype=torch.bool))
        student = build_student(shape, arguments.items, texts=texts)
    else:
        table = factored(teacher, arguments.rank) if arguments.rank else teacher
        student = build_student(shape, arguments.items, table, ED_WEIGHT, project_in_bf16=not arguments.rank)
    item_count = torch.randint(100, (arguments.items,), generator=generator)
    objective = Objective(replace(SETTINGS, base_loss=arguments.base_loss), item_count)
    trained, as_written = partial(trained_total, objective), partial(plain_total, objective)
    sampler = NegativeSampler(NEGATIVES, "uniform", item_count) if objective.settings.samples_negatives else None
    optimizer = RowAdam(student.parameters(), lr=1e-3)

    def one_step() -> list[float]:
        batch = random_batch(arguments, generator)
        batch = batch if sampler is None else with_negatives(batch, sampler, arguments.items)
        return train_step(student, optimizer, trained, batch)

    step_ms, least_ms, parts = time_steps(one_step, arguments.steps, warm_up=5)
    if arguments.texts or arguments.rank or arguments.output == "tied" or sampler is not None:
        of_parts = {f"{name}_ms": round(part, 1) for name, part in zip(PARTS, parts, strict=True)}
        print(json.dumps({"step_ms": round(step_ms, 1), "fastest_ms": round(least_ms, 1)} | of_parts))
        return
    evaluate_s = seconds_to_evaluate(student, arguments)
    peak_mib = peak_resident() / 2**20

    plain = build_student(shape, arguments.items, teacher, ED_WEIGHT)
    plain.items = PlainItems(plain, teacher)  # type: ignore[assignment]

    # Timing means something only if both compute the same.
    states = torch.randn(arguments.batch, arguments.hidden_size, generator=generator)
    layer = OutputLayer(torch.randn(arguments.items, arguments.hidden_size, generator=generator), None, arguments.items)
    batch = random_batch(arguments, generator)
    torch.testing.assert_close(trained(states, layer, batch), as_written(states, layer, batch))
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    plain_step_ms, plain_least_ms, plain_parts = time_steps(
        lambda: train_step(plain, optimizer, as_written, random_batch(arguments, generator)),
        arguments.plain_steps,
        warm_up=1,
    )
    print(f"{torch.get_num_threads()} threads, load {load:.1f} before the start, torch {torch.__version__}, float32")
    print(f"teacher table in bfloat16, {teacher.numel() * teacher.element_size() / 2**20:.0f} MiB")
    print(f"fastest step {least_ms:.1f} ms, plain {plain_least_ms:.1f} ms")
    print_parts(parts, plain_parts)
    measured = {
        "step_ms": round(step_ms, 1),
        "plain_step_ms": round(plain_step_ms, 1),
        "ratio": round(plain_step_ms / step_ms, 1),
        "evaluate_s": round(evaluate_s, 2),
        "peak_mib": round(peak_mib),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
