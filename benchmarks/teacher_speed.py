"""How many LLM tokens a second a ranking teacher trains on and scores, beside its bare LLM on the same tokens.

``python benchmarks/teacher_speed.py --threads 1`` (``--help`` lists the sizes) on MovieLens-100K. The teacher runs as
the product runs it: `fit` with its clipping, optimiser, metrics and counting, over packed prompts, gated LoRA, SASRec
states, the head over the catalogue and ``mask_seen``; and `scored`, which ranks and keeps. Each batch of it is followed
or preceded, in turns, by the bare LLM on the prompts of the same batch: the same row of texts, kept apart by the same
`recdistill.teachers.ilora.documents`, embeddings of the tokens as inputs. Bare is as transformers made it otherwise:
without `rms_norm` and `short_attention`, by which a teacher is faster than it would be.

Bare training is forward, and backward from the same states to the inputs, with every weight frozen. That is the least
that any adapter needs: gradients of activations pass through the whole LLM, and gradients of its weights are nobody's.
It has no adapter, so LoRA's own products count as the teacher's loss, as they should: 85 % leaves them a seventh. Bare
scoring is the forward pass in inference mode. What a teacher does once, as reading all titles, is left out of both.

Seconds are of CPU in one thread, which other work on the machine disturbs least, and of the clock with more. It prints
tokens a second of all four, the share (of the sums, and the median over batches), and where a teacher's time goes: a
backward pass is parted where the gradient of the LLM's states, and that of its inputs, arrive. "LoRA and peft" is the
LLM's time less the bare one's. One JSON line last. ``--by_peft`` has peft compute the LoRA layers, operation by
operation, in place of `recdistill.teachers.ilora.fused_lora`: the same numbers in more time. ``--padded`` has the
teacher read prompts of like length as padded rows.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.config import StudentConfig, TeacherConfig
from recdistill.data.batches import Batch
from recdistill.data.load import load_data
from recdistill.students.build import build_student, shape_of
from recdistill.teachers.ilora.documents import Documents, documents_apart
from recdistill.teachers.ilora.fused_lora import FusedLayer
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.ilora.rms_norm import QuickNorm
from recdistill.teachers.ranking.teacher import RankingTeacher
from recdistill.teachers.scoring import scored
from recdistill.teachers.shards import Shards
from recdistill.teachers.training import plan_of
from recdistill.training.distributed import ALONE
from recdistill.training.fit import fit

CPU = torch.device("cpu")
LLM_FORWARD, LLM_BACKWARD = "LLM forward", "LLM backward"


@dataclass
class Stopwatch:
    """Seconds by part, of the batches that count.

    Attributes:
        clock: gives seconds.
        counts: whether the batch at hand is timed.
        parts: seconds of each part.
        own, bare: seconds of each timed batch, the teacher's and the bare LLM's.
        tokens: of each.
    """

    clock: Callable[[], float]
    counts: bool = False
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    own: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add(self, part: str, seconds: float) -> None:
        """Count seconds for a part."""
        if self.counts:
            self.parts[part] += seconds

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time within the context."""
        begun = self.clock()
        try:
            yield
        finally:
            self.add(part, self.clock() - begun)

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted."""

        def timed(*given: Any, **named: Any) -> Any:
            with self.timed(part):
                return call(*given, **named)

        return timed

    @property
    def share(self) -> float:
        """The teacher's tokens a second as a share of the bare LLM's."""
        return sum(self.bare) / sum(self.own)

    def speed(self, seconds: list[float]) -> float:
        """Tokens a second."""
        return sum(self.tokens) / sum(seconds)


class TimedTeacher(RankingTeacher):
    """A teacher whose batches for scoring are given by `turns`."""

    drawn: Callable[[Iterator[Batch]], Iterator[Batch]]

    def batches(self, *given: Any, **named: Any) -> Iterator[Batch]:
        """See `RankingTeacher.batches`."""
        return type(self).drawn(super().batches(*given, **named))

    def item_embedding(self) -> Tensor:
        """Nothing: titles are read once, whatever is scored."""
        return torch.zeros(self.data.num_items, 1)

    item_view = item_embedding


@dataclass(frozen=True)
class Bare:
    """The LLM alone.

    Attributes:
        model: without adapter, every weight frozen.
        teacher: whose prompts it reads.
        watch: counts its time.
    """

    model: Any
    teacher: RankingTeacher
    watch: Stopwatch

    def run(self, batch: Batch, train: bool) -> tuple[float, int]:
        """Seconds of a pass over a batch's prompts, and their tokens."""
        prompts = self.teacher.model.prompts(batch.history, batch.row, batch.column)
        embed, row = self.model.get_input_embeddings(), prompts.in_one_row()
        given = embed(row.tokens.unsqueeze(0)).detach().requires_grad_(train)
        begun = self.watch.clock()
        documents = Documents.of(row.lengths, CPU)
        with documents_apart(lambda: documents):
            found = self.model(inputs_embeds=given, use_cache=False, position_ids=documents.position)[0]
        states = found[0, row.sample].float()
        between = self.watch.clock()
        if train:
            states.square().mean().backward()
        ended = self.watch.clock()
        self.watch.add(f"bare {LLM_FORWARD}", between - begun)
        self.watch.add(f"bare {LLM_BACKWARD}", ended - between)
        return ended - begun, int(prompts.length.sum())


def turns(
    drawn: Iterator[Batch], bare: Bare, train: bool, rounds: int, ended: Callable[[], None] | None = None
) -> Iterator[Batch]:
    """So many batches after two that warm up; what is done with each is timed, and so is the bare LLM's pass over it.

    They take turns at being first, for the first to see a shape has oneDNN compile its products.
    """
    watch = bare.watch
    for number in range(rounds + 2):
        watch.counts = number >= 2
        with watch.timed("batches drawn"):
            begun = watch.clock()
            batch = next(drawn)
            seconds = watch.clock() - begun
        alone = bare.run(batch, train) if number % 2 else None
        begun = watch.clock()
        yield batch
        if ended is not None:
            ended()
        seconds += watch.clock() - begun
        of_bare, tokens = alone or bare.run(batch, train)
        if watch.counts:
            watch.own.append(seconds)
            watch.bare.append(of_bare)
            watch.tokens.append(tokens)
            share = of_bare / seconds
            print(f"  {tokens} tokens, {tokens / seconds:.0f} a second, {share:.0%} of the bare LLM's", flush=True)
    watch.counts = False


@contextmanager
def parts_timed(teacher: RankingTeacher, watch: Stopwatch) -> Iterator[None]:
    """Count the time of a teacher's parts within the context."""
    model = teacher.model
    kept = {"states": RankingTeacher.states, "exclude": RankingTeacher.exclude}
    handles: list[Any] = []
    try:
        for name, part in (("states", "SASRec states"), ("exclude", "seen items left out")):
            setattr(RankingTeacher, name, watch.around(part, kept[name]))
        model.prompts = watch.around("prompts laid out", model.prompts)  # type: ignore[method-assign]
        for part, module in (("head over the catalogue", model.head), ("gate", model.gate), (LLM_FORWARD, model.llm)):
            begun: list[float] = []
            handles += [
                module.register_forward_pre_hook(lambda *_, begun=begun: begun.append(watch.clock())),
                module.register_forward_hook(
                    lambda *_, begun=begun, part=part: watch.add(part, watch.clock() - begun.pop())
                ),
            ]
        yield
    finally:
        for name, function in kept.items():
            setattr(RankingTeacher, name, function)
        del model.prompts
        for handle in handles:
            handle.remove()


class BackwardParts:
    """Parts the time of backward passes: what comes before the LLM's, in it, and after it."""

    def __init__(self, teacher: RankingTeacher, watch: Stopwatch) -> None:
        self.watch = watch
        self.last: float | None = None
        self.handles = [teacher.model.llm.register_forward_hook(self.mark, with_kwargs=True)]

    def mark(self, _: Any, __: Any, named: dict[str, Any], output: Any) -> None:
        """Have the gradients of the LLM's states and inputs tell when they arrive."""
        if output[0].requires_grad:
            output[0].register_hook(lambda _: self.passed("head and loss, backward"))
            named["inputs_embeds"].register_hook(lambda _: self.passed(LLM_BACKWARD))

    def passed(self, part: str) -> None:
        """The time since the last mark was this part's."""
        now = self.watch.clock()
        if self.last is not None:
            self.watch.add(part, now - self.last)
        self.last = now

    def starting(self, step: Callable[[Batch], dict[str, Tensor]]) -> Callable[[Batch], dict[str, Tensor]]:
        """A lesson's step, after which a backward pass begins."""

        def timed(batch: Batch) -> dict[str, Tensor]:
            found = step(batch)
            self.last = self.watch.clock()
            return found

        return timed


def train(teacher: RankingTeacher, bare: Bare, rounds: int, folder: Path) -> None:
    """Train on so many batches, as `fit_lesson` does, in turns with the bare LLM."""
    watch, lesson = bare.watch, teacher.lesson()
    backward = BackwardParts(teacher, watch)
    lesson = replace(lesson, step=backward.starting(watch.around("lesson", lesson.step)))
    drawn = turns(lesson.batches(), bare, True, rounds)
    plan = plan_of(teacher.config, lesson, ALONE, "teacher")
    plan = replace(plan, batches=lambda _: drawn, num_batches=rounds + 2, epochs=1, checkpoint_seconds=1e9)
    plan = replace(plan, size=watch.around("batches counted", plan.size))
    begun: list[float] = []

    def step_begins(*_: Any) -> None:
        # Clipping comes before it, and is counted by the rest.
        backward.passed("projector and gate, backward, and clipping")
        begun.append(watch.clock())

    plan.optimizer.register_step_pre_hook(step_begins)
    plan.optimizer.register_step_post_hook(lambda *_: watch.add("Adam", watch.clock() - begun.pop()))
    with parts_timed(teacher, watch):
        fit(plan, folder / "teacher.safetensors", lambda *_: None)
    for handle in backward.handles:
        handle.remove()


def score(teacher: TimedTeacher, bare: Bare, rounds: int, folder: Path) -> None:
    """Score so many batches, as `make_outputs` does, in turns with the bare LLM."""
    TimedTeacher.drawn = lambda drawn: turns(drawn, bare, False, rounds)
    with parts_timed(teacher, bare.watch):
        scored(teacher, replace(teacher.config, outputs_token_budget=10**9), Shards(folder))


def parts_of(watch: Stopwatch) -> dict[str, float]:
    """Seconds of each part, those within others taken out, LoRA's apart from the LLM's, and the rest."""
    parts = dict(watch.parts)
    inner = ("SASRec states", "seen items left out", "head over the catalogue", "gate", LLM_FORWARD)
    twice = parts.pop("batches counted", 0.0)
    if "lesson" in parts:
        # Prompts are laid out for the pass, and again where tokens are counted.
        of_pass = parts["prompts laid out"] - twice
        parts["loss and metrics"] = parts.pop("lesson") - sum(parts[name] for name in inner) - of_pass
    for name in (LLM_FORWARD, LLM_BACKWARD):
        alone = parts.pop(f"bare {name}", 0.0)
        if name in parts:
            parts[f"LoRA and peft, {name.partition(' ')[2]}"] = parts[name] - alone
            parts[name] = alone
    parts["rest"] = sum(watch.own) - sum(parts.values())
    return dict(sorted(parts.items(), key=lambda pair: -pair[1]))


def print_parts(title: str, watch: Stopwatch) -> None:
    """Speeds, shares, and a table of parts."""
    shares = [bare / own for bare, own in zip(watch.bare, watch.own, strict=True)]
    print(
        f"{title}: {watch.speed(watch.own):.0f} tokens a second, bare {watch.speed(watch.bare):.0f}; "
        f"{watch.share:.1%} of it, median over batches {statistics.median(shares):.1%}"
    )
    for name, seconds in parts_of(watch).items():
        ms = 1e3 * seconds / sum(watch.tokens)
        print(f"  {name:<45}{ms:>8.3f} ms a token{seconds / sum(watch.own):>8.1%}")


def measured(name: str, watch: Stopwatch) -> dict[str, float]:
    """What the JSON line tells."""
    return {
        f"{name}_tokens_per_s": round(watch.speed(watch.own), 1),
        f"bare_{name}_tokens_per_s": round(watch.speed(watch.bare), 1),
        f"{name}_share_of_bare": round(watch.share, 3),
    }


def processor() -> str:
    """The CPU's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def parse_arguments() -> argparse.Namespace:
    defaults = TeacherConfig()
    parser = argparse.ArgumentParser(description="A ranking teacher's tokens a second beside its bare LLM's.")
    parser.add_argument("--llm", default=defaults.llm, help="alias, Hugging Face id or local path")
    parser.add_argument("--by_peft", action="store_true", help="LoRA layers as peft computes them")
    parser.add_argument("--padded", action="store_true", help="the teacher reads padded rows, as some LLMs must")
    for name, default, text in (
        ("batches", 20, "timed batches of training, and a quarter as many, larger ones, of scoring"),
        ("tokens_per_batch", defaults.tokens_per_batch, "LLM tokens of a training batch"),
        ("threads", 0, "0 for torch's own number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    alone = torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    if arguments.by_peft:
        FusedLayer.fits = lambda *_: False  # type: ignore[method-assign,assignment]
    config = TeacherConfig(llm=arguments.llm, tokens_per_batch=arguments.tokens_per_batch, device="cpu")
    data = load_data(config)
    torch.manual_seed(0)
    backbone = build_student(shape_of(StudentConfig()), data.num_items).eval().requires_grad_(False)
    teacher = TimedTeacher.build(config, load_llm(arguments.llm, CPU), backbone, data)
    if arguments.padded:
        teacher.model.longest_in_row = 0
    llm = load_llm(arguments.llm, CPU).model
    for layer in llm.modules():
        if isinstance(layer, QuickNorm):
            layer.__class__ = type(layer).__bases__[1]
    training, scoring = Stopwatch(clock), Stopwatch(clock)
    with tempfile.TemporaryDirectory() as folder:
        print("training")
        train(teacher, Bare(llm, teacher, training), arguments.batches, Path(folder))
        print("scoring")
        score(teacher, Bare(llm, teacher, scoring), max(1, arguments.batches // 4), Path(folder) / "shards")
    seconds = "CPU seconds" if alone else "seconds"
    print(f"{processor()}, {torch.get_num_threads()} threads, {seconds}, load {load:.1f} before the start")
    print(f"{arguments.llm} in {llm.dtype}, torch {torch.__version__}, {data.name}, {data.num_items:,} items")
    print_parts("training", training)
    print_parts("scoring", scoring)
    print(json.dumps(measured("training", training) | measured("scoring", scoring)))


if __name__ == "__main__":
    main()
