"""The lesson of a generative teacher: candidate prompts and their answers, under LLaRA's curriculum."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from recdistill.data.batches import Batch, batches
from recdistill.teachers.generative.candidate_prompts import CandidatePrompts, training_prompts
from recdistill.teachers.ilora.gate import gate_metrics
from recdistill.teachers.protocol import Lesson
from recdistill.teachers.schedule import curve_of

if TYPE_CHECKING:
    from recdistill.teachers.generative.teacher import GenerativeTeacher


@dataclass(frozen=True, eq=False)
class NumberedBatch:
    """A training batch, and its number from 0: the prompts made of it depend on the number and the seed alone."""

    number: int
    batch: Batch

    def __len__(self) -> int:
        """S, the number of samples."""
        return len(self.batch)


def generative_lesson(teacher: "GenerativeTeacher", total: int | None = None) -> Lesson[NumberedBatch]:
    """Candidate prompts and their answers; each batch has one template, and item embeddings or text alone.

    The curriculum of LLaRA: batch i of ``total`` has item embeddings at its markers with probability (i + 1) / total.
    By default ``total`` is the number of batches that the token budget pays for.
    """
    config, model, train = teacher.config, teacher.model, teacher.data.train
    templates, curriculum = len(model.parts.templates), teacher.options.curriculum
    most = math.prod(curve_of(config)) if total is None else total

    @lru_cache(maxsize=1)  # a step and its size ask for the same
    def prompts_of(one: NumberedBatch) -> tuple[CandidatePrompts, bool]:
        random = np.random.default_rng([config.seed, one.number])
        template, injected = int(random.integers(templates)), random.random() < (one.number + 1) / most
        candidates = teacher.drawn_candidates(train, one.batch, config.seed, one.number)
        rows = (teacher.histories(one.batch), candidates, [template] * len(one), one.batch.target.tolist())
        prompts = training_prompts(model.parts, *rows, users=teacher.users_before(one.batch))
        return prompts, injected or not curriculum

    def step(one: NumberedBatch) -> dict[str, Tensor]:
        prompts, injected = prompts_of(one)
        loss = model(prompts, teacher.states(one.batch), injected)
        return {"total": loss, "injected": loss.new_tensor(float(injected))} | gate_metrics(model.sample_gates)

    def size(one: NumberedBatch) -> dict[str, int]:
        return {"samples": len(one), "tokens": prompts_of(one)[0].tokens.numel()}

    def divide(one: NumberedBatch, index: int, count: int) -> tuple[NumberedBatch, float]:
        part, share = one.batch.part(index, count)
        # The loss is a mean over the tokens of answers, not over samples.
        tokens = [float((model.parts.titles.lengths[of.target] + 1).sum()) for of in (part, one.batch)]
        return NumberedBatch(one.number, part), tokens[0] / tokens[1] if share else 0.0

    return Lesson(
        module=model,
        parameters=model.trained(),
        groups=teacher.parameter_groups(),
        batches=lambda: training_batches(teacher),
        step=step,
        size=size,
        divide=divide,
    )


def training_batches(teacher: "GenerativeTeacher") -> Iterator[NumberedBatch]:
    """Batches of about ``tokens_per_batch`` tokens, pass after pass, numbered."""
    config, data = teacher.config, teacher.data
    samples = max(1, round(config.tokens_per_batch / teacher.tokens_a_sample()))
    index = data.trainable(config.exclude_seen)
    number = count()
    for epoch in count():
        for batch in batches(
            data.train,
            length=teacher.window,
            batch_size=samples,
            stride=1,
            padding_id=data.padding_id,
            seed=config.seed,
            epoch=epoch,
            index=index,
        ):
            yield NumberedBatch(next(number), batch)
