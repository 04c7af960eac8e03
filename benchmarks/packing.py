"""Tokens and time that the LLM spends on a supervised next-item prediction, packed and with a prompt for each sample.

Run ``python benchmarks/packing.py`` (``--help`` lists the sizes) on MovieLens-100K. Training passes, forward and
backward, of three forms take turns: ``packed``, prompts of up to W titles that supervise every item boundary;
``unpacked``, a prompt of up to W titles for each sample, the same window; and ``short``, a prompt of as many titles as
a packed sample has at least. One JSON line last: LLM tokens a prediction and predictions a second of each, and their
ratios. The backbone is untrained, which costs the same. Time it on idle cores: the load is printed.

``--seeds 3 --token_budget N`` also trains packed and short teachers on N tokens each, over one trained backbone a seed,
and adds their validation NDCG@20 by seed; that takes the time of six such trainings and rankings.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch

from recdistill.config import StudentConfig, TeacherConfig, changed, narrow
from recdistill.data.batches import Batch
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.students.build import build_student, shape_of
from recdistill.students.student import Student
from recdistill.students.training import fit_recommender
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.protocol import Lesson
from recdistill.teachers.ranking import teacher as ranking
from recdistill.teachers.ranking.lesson import training_batches
from recdistill.teachers.ranking.teacher import RankingTeacher
from recdistill.teachers.training import train_teacher
from recdistill.training.recorder import NoRecorder

CPU = torch.device("cpu")


@dataclass
class Form:
    """One form of prompts, its batches, and what its passes have cost so far."""

    teacher: RankingTeacher
    lesson: Lesson[Batch]
    batches: Iterator[Batch]
    predictions: int = 0
    tokens: int = 0
    padding: int = 0
    seconds: float = 0.0

    def run(self, counted: bool) -> None:
        """A training pass over the next batch."""
        model = self.teacher.model
        # All forms share one model; only its prompts differ.
        model.shape = ranking.shape_of(self.teacher.config)
        batch = next(self.batches)
        begin = time.perf_counter()
        self.lesson.step(batch)["total"].backward()
        seconds = time.perf_counter() - begin
        model.zero_grad(set_to_none=True)
        if counted:
            prompts = model.prompts(batch.history, batch.row, batch.column)
            self.predictions += len(batch)
            self.tokens += prompts.num_tokens
            self.padding += prompts.num_tokens - int(prompts.length.sum())
            self.seconds += seconds


def forms_of(arguments: argparse.Namespace, data: SequenceData) -> dict[str, Form]:
    """The three forms over one LLM and one backbone."""
    packed = options(arguments)
    configs = {
        "packed": packed,
        "unpacked": changed(packed, packing=False, teacher_history=packed.value("teacher_window")),
        "short": changed(packed, packing=False),
    }
    torch.manual_seed(0)
    student = build_student(shape_of(StudentConfig()), data.num_items).eval().requires_grad_(False)
    model = RankingTeacher.build(packed, load_llm(arguments.llm, CPU), student, data).model.train()
    teachers = {
        name: RankingTeacher(model=model, backbone=student, data=data, config=config)
        for name, config in configs.items()
    }
    return {name: Form(teacher, teacher.lesson(), training_batches(teacher)) for name, teacher in teachers.items()}


def options(arguments: argparse.Namespace) -> TeacherConfig:
    """Packed teacher options."""
    return TeacherConfig(
        llm=arguments.llm,
        max_users=arguments.users,
        teacher_window=arguments.window,
        teacher_history=arguments.history,
        tokens_per_batch=arguments.tokens_per_batch,
        device="cpu",
    )


def time_forms(forms: dict[str, Form], seconds: float) -> None:
    """Passes in turns, for about so many seconds of each form."""
    for form in forms.values():
        form.run(counted=False)
    while any(form.seconds < seconds for form in forms.values()):
        for form in forms.values():
            # Unpacked batches may take longer: each form gets the same time.
            if form.seconds < seconds:
                form.run(counted=True)


def validation_of_seeds(arguments: argparse.Namespace, data: SequenceData) -> dict[str, list[float]]:
    """Validation NDCG@20 of packed and short teachers of the same budget, by seed."""
    found: dict[str, list[float]] = {"packed": [], "short": []}
    for seed in range(1, arguments.seeds + 1):
        config = changed(options(arguments), seed=seed, token_budget=arguments.token_budget)
        backbone = fit_recommender(narrow(config, StudentConfig), data, recorder=NoRecorder()).model
        assert isinstance(backbone, Student)
        for name, values in found.items():
            form = changed(config, packing=name == "packed")
            teacher, _ = train_teacher(form, data, backbone.requires_grad_(False), recorder=NoRecorder())
            values.append(metrics_from_ranks(teacher.ranks()[0].ranks)["ndcg_at_20"])
            print(f"seed {seed}, {name}: validation NDCG@20 {values[-1]:.4f}", flush=True)
    return found


def parse_arguments() -> argparse.Namespace:
    defaults = TeacherConfig()
    parser = argparse.ArgumentParser(description="Tokens and time a prediction, packed and unpacked.")
    parser.add_argument("--llm", default=defaults.llm, help="alias, Hugging Face id or local path")
    parser.add_argument("--seconds", type=float, default=60, help="of each form (default 60)")
    for name, default, text in (
        ("users", 0, "first users of MovieLens-100K, 0 for all"),
        ("window", defaults.value("teacher_window"), "W, titles in a prompt, at most"),
        ("history", defaults.teacher_history, "titles that a packed sample has, at least"),
        ("tokens_per_batch", defaults.tokens_per_batch, "LLM tokens a batch"),
        ("seeds", 0, "seeds of the comparison on validation, 0 for none"),
        ("token_budget", defaults.token_budget, "LLM tokens of each of its trainings"),
        ("threads", 0, "0 for torch's own number"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = load_data(options(arguments))
    forms = forms_of(arguments, data)
    time_forms(forms, arguments.seconds)
    print(f"{torch.get_num_threads()} threads, load {load:.1f} before the start, torch {torch.__version__}")
    print(f"{arguments.llm}, {data.name}, {len(data.train):,} training samples, window {arguments.window}")
    print(f"{'form':<10}{'tokens a prediction':>21}{'predictions a second':>22}{'predictions':>13}{'padding':>9}")
    result: dict[str, object] = {"window": arguments.window, "history": arguments.history}
    for name, form in forms.items():
        tokens, speed = form.tokens / form.predictions, form.predictions / form.seconds
        padding = form.padding / form.tokens
        print(f"{name:<10}{tokens:>21.1f}{speed:>22.2f}{form.predictions:>13,}{padding:>9.1%}")
        result |= {f"tokens_per_prediction_{name}": round(tokens, 1), f"predictions_per_second_{name}": round(speed, 2)}
    packed = forms["packed"]
    for name in ("unpacked", "short"):
        other = forms[name]
        fewer = (other.tokens / other.predictions) / (packed.tokens / packed.predictions)
        faster = (packed.predictions / packed.seconds) / (other.predictions / other.seconds)
        result |= {f"fewer_tokens_than_{name}": round(fewer, 1), f"faster_than_{name}": round(faster, 1)}
    if arguments.seeds:
        by_seed = validation_of_seeds(arguments, data)
        gains = [a - b for a, b in zip(by_seed["packed"], by_seed["short"], strict=True)]
        result |= {f"val_ndcg_at_20_{name}": [round(value, 4) for value in values] for name, values in by_seed.items()}
        result |= {"token_budget": arguments.token_budget, "val_ndcg_at_20_gain": round(mean(gains), 4)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
