"""The generative teacher of iLoRA (NeurIPS 2024) in the step ``teacher``: what it is built of and learns from."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch, batches
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.steps.generative_scoring import GenerativeScorer, generative_scorer, judged_answers
from recdistill.steps.teaching import Lesson, curve_of
from recdistill.students.student import Student
from recdistill.teachers.generative.answers import most_free_tokens
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.generative.candidate_prompts import CandidatePrompts, training_prompts
from recdistill.teachers.ilora.gate import gate_metrics
from recdistill.teachers.generative.model import GenerativeShape, build_generative_model
from recdistill.runs.step_runs import StepRun
from recdistill.training.distributed import Processes

Answered = tuple[dict[str, float], dict[str, pd.DataFrame]]


@dataclass(frozen=True, eq=False)
class NumberedBatch:
    """A training batch, and its number from 0: the prompts made of it depend on the number and the seed alone."""

    number: int
    batch: Batch

    def __len__(self) -> int:
        """S, the number of samples."""
        return len(self.batch)


def generative_at_work(
    config: TeacherConfig, llm: BaseLLM, student: Student, data: SequenceData, processes: Processes
) -> tuple[GenerativeScorer, Lesson[NumberedBatch]]:
    """A fresh generative teacher beside its backbone, and what it learns from. Raises InputError."""
    if processes.sharded:
        raise InputError("--use_fsdp: a generative teacher writes its answers over a whole base; launch without it")
    model = build_generative_model(llm, generative_shape(config), data.titles, student.item_table().detach())
    scorer = generative_scorer(config, model.to(processes.device), student, data, processes)
    check_length(config, scorer, llm.most_tokens)
    return scorer, generative_lesson(config, scorer, math.prod(curve_of(config)))


def generative_shape(config: TeacherConfig) -> GenerativeShape:
    """The generative teacher of the options."""
    return GenerativeShape(
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        experts=config.experts,
        gate=config.gate,
        domain=config.domain,
        gate_per_layer=config.gate_per_layer,
    )


def generative_lesson(config: TeacherConfig, scorer: GenerativeScorer, total: int) -> Lesson[NumberedBatch]:
    """Candidate prompts and their answers; each batch has one wording, and item embeddings or text alone.

    The curriculum of LLaRA: batch i of ``total`` has item embeddings at its markers with probability (i + 1) / total.
    """
    model, train = scorer.teacher, scorer.data.train
    wordings = len(model.parts.wordings)
    samples = max(1, round(config.tokens_per_batch / scorer.tokens_a_sample(packed=False)))

    def numbered() -> Iterator[NumberedBatch]:
        number = count()
        for epoch in count():
            for batch in batches(
                train,
                length=scorer.window,
                batch_size=samples,
                stride=1,
                padding_id=scorer.data.padding_id,
                seed=config.seed,
                epoch=epoch,
            ):
                yield NumberedBatch(next(number), batch)

    @lru_cache(maxsize=1)  # a step and its size ask for the same
    def prompts_of(one: NumberedBatch) -> tuple[CandidatePrompts, bool]:
        random = np.random.default_rng([config.seed, one.number])
        wording, injected = int(random.integers(wordings)), random.random() < (one.number + 1) / total
        candidates = scorer.drawn_candidates(train, one.batch, config.seed, one.number)
        rows = (scorer.histories(one.batch), candidates, [wording] * len(one), one.batch.target.tolist())
        return training_prompts(model.parts, *rows), injected or not config.curriculum

    def step(one: NumberedBatch) -> dict[str, Tensor]:
        prompts, injected = prompts_of(one)
        loss = model(prompts, scorer.states(one.batch), injected)
        return {"total": loss, "injected": torch.tensor(float(injected))} | gate_metrics(model.sample_gates)

    def size(one: NumberedBatch) -> dict[str, int]:
        return {"samples": len(one), "tokens": prompts_of(one)[0].tokens.numel()}

    def divide(one: NumberedBatch, index: int, count: int) -> tuple[NumberedBatch, float]:
        part, share = one.batch.part(index, count)
        # The loss is a mean over the tokens of answers, not over samples.
        tokens = [float((model.parts.titles.lengths[of.target] + 1).sum()) for of in (part, one.batch)]
        return NumberedBatch(one.number, part), tokens[0] / tokens[1] if share else 0.0

    return Lesson(numbered, step, size, divide)


def check_length(config: TeacherConfig, scorer: GenerativeScorer, most_tokens: int | None) -> None:
    """Raise InputError where a prompt that can be drawn has, with its answer, more tokens than the LLM reads."""
    sizes = np.sort(scorer.teacher.parts.titles.lengths + 1)[::-1]
    listed = sizes[: config.candidates].sum() + sizes[0] * config.teacher_history
    around = max(sum(map(len, wording)) for wording in scorer.teacher.parts.wordings)
    longest = int(around + listed) + most_free_tokens(scorer.teacher)
    if most_tokens is not None and longest > most_tokens:
        raise InputError(
            f"candidates={config.candidates}: makes prompts of up to {longest} tokens, and llm={config.llm} reads "
            f"{most_tokens}; lower candidates or teacher_history"
        )


def answers_judged(scorer: GenerativeScorer) -> Answered:
    """Metrics of the validation and of the test samples' answers, and the answers, by ``val`` and ``test``."""
    started = time.perf_counter()
    found = {
        part: judged_answers(scorer, part, samples)
        for part, samples in (("val", scorer.data.validation), ("test", scorer.data.test))
    }
    metrics = {name: value for own, _ in found.values() for name, value in own.items()}
    answered = len(scorer.data.validation) + len(scorer.data.test)
    metrics["ms_per_answer"] = 1e3 * (time.perf_counter() - started) / answered
    return metrics, {part: table for part, (_, table) in found.items()}


def log_answers(run: StepRun, answered: Answered) -> None:
    """Log the metrics, and keep the answers as ``answers/val.parquet`` and ``answers/test.parquet``."""
    metrics, tables = answered

    def write(folder: Path) -> None:
        folder.mkdir()
        for part, table in tables.items():
            table.to_parquet(folder / f"{part}.parquet", index=False)

    run.log_metrics(metrics)
    run.log_folder("answers", write)
