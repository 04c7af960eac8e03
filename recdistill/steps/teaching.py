"""What the step ``teacher`` asks of either kind of teacher: something to learn from, and answers about samples."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np
from torch import Tensor
from tqdm import tqdm

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.students.student import Student
from recdistill.teachers.generative.model import GenerativeModel
from recdistill.teachers.ranking.model import RankingModel
from recdistill.training.distributed import Processes
from recdistill.training.fit import BatchType

CURVE_POINTS = 20


@dataclass(frozen=True, eq=False)
class Lesson(Generic[BatchType]):
    """What a teacher learns from.

    Attributes:
        batches: of about ``tokens_per_batch`` tokens, pass after pass without end, the same each time.
        step: the losses of a batch, the one named ``total`` differentiable.
        size: samples and LLM tokens of a batch.
        divide: a process's part of a batch and its share of the loss; see `training.fit.TrainingPlan`.
    """

    batches: Callable[[], Iterator[BatchType]]
    step: Callable[[BatchType], dict[str, Tensor]]
    size: Callable[[BatchType], Mapping[str, int]]
    divide: Callable[[BatchType, int, int], tuple[BatchType, float]]


class Scoring(Protocol):
    """A teacher at work beside its frozen backbone: a `Scorer`, or a `GenerativeScorer`."""

    @property
    def teacher(self) -> RankingModel | GenerativeModel:
        """The teacher, on its device."""

    @property
    def backbone(self) -> Student:
        """The student whose states it reads."""

    @property
    def data(self) -> SequenceData:
        """The samples' data."""

    @property
    def processes(self) -> Processes:
        """Those that score together."""

    @property
    def kind(self) -> str:
        """The kind of teacher, for the manifest of its outputs."""

    @property
    def confidence(self) -> str:
        """What its distances are, for the manifest."""

    @property
    def window(self) -> int:
        """Items that the backbone reads."""

    @property
    def stride(self) -> int:
        """Samples of a prompt, at most."""

    def tokens_a_sample(self, packed: bool) -> float:
        """LLM tokens that a training sample costs, about."""

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """LLM tokens that scoring a batch costs, at most."""

    def batches(
        self, samples: Samples, stride: int, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given) for scoring."""

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distance of every item [S, V], inf for those left out, and the teacher's states of the samples [S, F]."""

    def item_embedding(self) -> Tensor:
        """The teacher's view of every item, float32 [V, E], on any device."""

    def ranks(self) -> tuple[Ranked, Ranked, float]:
        """What it makes of the validation and of the test samples, and the seconds it took."""


def curve_of(config: TeacherConfig) -> tuple[int, int]:
    """Points of the training curve, and batches up to each, within the token budget."""
    steps = math.ceil(config.token_budget / (config.accumulation * config.tokens_per_batch))
    steps_a_point = max(1, math.ceil(steps / CURVE_POINTS))
    return math.ceil(steps / steps_a_point), config.accumulation * steps_a_point


def shared(
    processes: Processes, batches: Iterable[Batch], title: str, total: int, done: Container[int] = ()
) -> Iterator[tuple[int, Batch, bool]]:
    """This process's share of the batches whose place is not in ``done``, under a bar that counts samples.

    Yields a batch's place, the batch, and whether its result is wanted; see `Processes.share_out`.
    """
    with tqdm(total=total, desc=title, leave=False, **processes.bar_options) as bar:

        def missing() -> Iterator[tuple[int, Batch]]:
            for place, batch in enumerate(batches):
                if place not in done:
                    yield place, batch
                bar.update(len(batch))

        for (place, batch), wanted in processes.share_out(missing()):
            yield place, batch, wanted
