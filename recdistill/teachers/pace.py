"""How fast a teacher learns and scores on this machine, from some of its batches."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from recdistill.config import TeacherConfig
from recdistill.config.student import StudentConfig
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.some_users import of_some_users
from recdistill.registry import TEACHERS
from recdistill.students.build import build_student, shape_of
from recdistill.teachers.build import base_llm
from recdistill.teachers.protocol import AsksQueries, Teacher, text_tokens_of
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes
from recdistill.training.resources import peak_memory

#: Batches that are timed, at least and at most, and the seconds after which no further one begins.
LEAST_BATCHES, MOST_BATCHES, SECONDS = 2, 12, 4.0
#: Samples above which the tokens of evaluation are reckoned, not counted.
COUNTED = 20_000


@dataclass(frozen=True)
class TeacherPace:
    """What a teacher's work takes.

    Attributes:
        learn: LLM tokens a second of its training.
        score: LLM tokens a second of its scoring.
        tokens_a_sample: LLM tokens that scoring a training sample costs, about.
        evaluated_tokens: LLM tokens of ranking validation and test.
        text_tokens: LLM tokens of the items' texts and titles, as often as they are read; 0 where it does not tell.
        memory_mib: most memory of the process so far.
    """

    learn: float
    score: float
    tokens_a_sample: float
    evaluated_tokens: float
    text_tokens: float
    memory_mib: float

    @property
    def fixed_seconds(self) -> float:
        """Of what no budget bounds: ranking validation and test, and reading the items' texts."""
        return (self.evaluated_tokens + self.text_tokens) / self.score

    def seconds(self, learnt: float, scored: float) -> float:
        """Of training and scoring on so many tokens, and of what no budget bounds."""
        return learnt / self.learn + scored / self.score + self.fixed_seconds


def teacher_pace(config: TeacherConfig, frozen: StudentConfig, data: SequenceData) -> TeacherPace | None:
    """Time some batches of an untrained teacher; None for one that is asked behind a server.

    Args:
        config: its options.
        frozen: those of its backbone, which is not trained for this.
        data: what it learns and scores.

    The random number generator of torch is left as it was. Raises InputError where the LLM cannot be loaded.
    """
    kind = TEACHERS.get(config.teacher)
    if not kind.needs_llm:
        return None
    with torch.random.fork_rng():
        processes = Processes(device=device_of(config))
        backbone = build_student(shape_of(frozen), data.num_items).to(processes.device).eval()
        teacher: Teacher = kind.build(config, base_llm(config, processes), backbone, data, processes)
        if isinstance(teacher, AsksQueries):
            return None
        learn = learning_speed(teacher)
        with torch.inference_mode():
            score = speed(teacher.batches(data.train, shuffle=True, seed=config.seed), *scoring(teacher, data.train))
        asked = of_some_users(data, config.ranked_users)
        parts = (asked.validation, asked.test)
        evaluated = sum(tokens_of(teacher, samples) for samples in parts)
        texts = text_tokens_of(teacher) or 0
        memory = peak_memory({processes.device})["system/memory_mib"]
        return TeacherPace(learn or score, score, teacher.tokens_a_sample(), evaluated, texts, memory)


def learning_speed(teacher: Teacher) -> float:
    """LLM tokens a second of its training; 0 where it is not trained."""
    lesson = teacher.lesson()
    if lesson is None:
        return 0.0
    optimizer = torch.optim.Adam(lesson.groups)
    lesson.module.train()

    def learn(batch: Any) -> None:
        optimizer.zero_grad()
        lesson.step(batch)["total"].backward()
        optimizer.step()

    found = speed(lesson.batches(), learn, lambda batch: lesson.size(batch)["tokens"])
    lesson.module.eval()
    return found


def scoring(teacher: Teacher, samples: Samples) -> tuple[Callable[[Any], object], Callable[[Any], int]]:
    """What scores a batch of samples, and what counts its tokens."""
    return lambda batch: teacher.outputs(samples, batch), lambda batch: teacher.num_tokens(samples, batch)


def speed(batches: Iterable[Any], work: Callable[[Any], object], tokens: Callable[[Any], int]) -> float:
    """LLM tokens a second of working on batches, the first left out, which also warms up."""
    taken: list[tuple[int, float]] = []
    for batch in batches:
        started = time.perf_counter()
        work(batch)
        taken.append((tokens(batch), time.perf_counter() - started))
        seconds = sum(one for _, one in taken)
        if len(taken) >= MOST_BATCHES or (len(taken) >= LEAST_BATCHES and seconds > SECONDS):
            break
    steady = taken[1:] or taken
    return sum(count for count, _ in steady) / max(1e-9, sum(seconds for _, seconds in steady))


def tokens_of(teacher: Teacher, samples: Samples) -> float:
    """LLM tokens of scoring all samples: counted, or for very many reckoned."""
    if len(samples) > COUNTED:
        return len(samples) * teacher.tokens_a_sample()
    return sum(teacher.num_tokens(samples, batch) for batch in teacher.batches(samples, shuffle=False))
