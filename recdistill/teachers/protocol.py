"""The protocol of a teacher: it scores samples, ranks, is saved and loaded; a lesson says how it is trained."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from torch import Tensor, nn

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.students.student import Student
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.fit import BatchType, Metrics, Progress


@dataclass(frozen=True, eq=False)
class Lesson(Generic[BatchType]):
    """The batches and losses that a teacher is trained on, and the parameters that are trained.

    Attributes:
        module: put into training mode while it is trained.
        parameters: every tensor that training changes, by name.
        groups: trained parameters and their peak learning rates, as an optimizer of torch takes them.
        batches: of about ``tokens_per_batch`` tokens, pass after pass without end; each call begins anew, alike.
        step: the losses of a batch, the one named ``total`` differentiable.
        size: samples and LLM tokens of a batch.
        divide: a process's part of a batch and its share of the loss; see `training.fit.TrainingPlan`.
        validate: metrics at each point of the curve; the weights of the best one are kept. None keeps the last.
        metric: the one of ``validate`` to maximise.
    """

    module: nn.Module
    parameters: dict[str, Tensor]
    groups: list[dict[str, Any]]
    batches: Callable[[], Iterator[BatchType]]
    step: Callable[[BatchType], dict[str, Tensor]]
    size: Callable[[BatchType], Mapping[str, int]]
    divide: Callable[[BatchType, int, int], tuple[BatchType, float]]
    validate: Callable[[], Metrics] | None = None
    metric: str = "val/ndcg_at_10"


@dataclass(frozen=True, eq=False)
class JudgedAnswers:
    """A teacher's written answers to the validation and test samples.

    Attributes:
        metrics: shares of valid and of right answers, e.g. ``test/valid_ratio``.
        tables: a row a sample, by ``val`` and ``test``.
    """

    metrics: dict[str, float]
    tables: dict[str, pd.DataFrame]


@runtime_checkable
class LearnsContent(Protocol):
    """A teacher that learns of the items' texts before its lesson."""

    def learn_content(self, fit: Callable[[Lesson[Any], int], Progress], folder: Path | None = None) -> float:
        """Learn; ``fit`` trains a lesson within a budget of tokens, ``folder`` is as of `Teacher.ranks`.

        Returns the seconds that it took.
        """

    def item_view(self, folder: Path | None = None) -> Tensor:
        """The teacher's vector of every item by its text alone, float32 [V, H], on any device."""


@runtime_checkable
class CountsTexts(Protocol):
    """A teacher that tells what reading the items' texts costs; of others, prices and estimates leave it out."""

    def text_tokens(self) -> int:
        """LLM tokens of the items' texts and titles, as often as it reads them beside lessons and prompts, at most."""


def text_tokens_of(teacher: "Teacher") -> int | None:
    """What reading the items' texts costs a teacher, see `CountsTexts`; None where it does not tell."""
    return teacher.text_tokens() if isinstance(teacher, CountsTexts) else None


@runtime_checkable
class AsksQueries(Protocol):
    """A teacher that is asked about sample after sample, each at a price, in place of a budget of tokens.

    It keeps its answers itself. A row of its `Teacher.outputs` that is inf throughout is a sample without an answer,
    which counts as one that was not asked.
    """

    def query_budget(self) -> int:
        """Training samples that it may be asked about, at most."""

    def metrics(self) -> dict[str, float]:
        """What was asked and spent."""


class Teacher(Protocol):
    """A teacher for the samples of one data set, in evaluation mode except while it is trained.

    A class registered in `registry.TEACHERS`; `recdistill.testing.teachers.check_teacher` checks one.

    Attributes:
        needs_llm: whether it is built over an LLM of this machine; where not, ``llm`` is None.
        needs_language_model_head: whether that LLM must predict tokens, not only give states.
    """

    needs_llm: ClassVar[bool]
    needs_language_model_head: ClassVar[bool]

    @classmethod
    def build(
        cls,
        config: TeacherConfig,
        llm: BaseLLM | None,
        backbone: Student,
        data: SequenceData,
        processes: Processes = ALONE,
    ) -> Self:
        """A teacher before its training.

        Args:
            config: its options.
            llm: the frozen LLM, on the processes' device; an adapter is added in place.
            backbone: the frozen student whose states it reads, in evaluation mode, on the same device.
            data: of the samples.
            processes: those that train and score together.

        Raises InputError where they do not fit.
        """

    @classmethod
    def load(
        cls, folder: Path, config: TeacherConfig, llm: BaseLLM | None, backbone: Student, data: SequenceData
    ) -> Self:
        """The teacher of `save`, over the same LLM, backbone and catalogue. Raises InputError where they do not fit."""

    @classmethod
    def check(cls, config: TeacherConfig, most_tokens: int | None) -> None:
        """Raise InputError where these options cannot work with an LLM of ``most_tokens`` positions (None: unknown)."""

    @property
    def kind(self) -> str:
        """The name that it is registered under, for the manifest of its outputs."""

    @property
    def llm(self) -> str:
        """The name of its LLM, for the manifest."""

    @property
    def confidence(self) -> str:
        """How its distances are defined, for the manifest."""

    @property
    def backbone(self) -> Student:
        """The student whose states it reads; query policies look at it."""

    @property
    def data(self) -> SequenceData:
        """The data set of the samples."""

    @property
    def processes(self) -> Processes:
        """Those that score together."""

    def lesson(self) -> Lesson[Any] | None:
        """The batches and losses that it is trained on; None for a teacher that is not trained."""

    def tokens_a_sample(self) -> float:
        """LLM tokens that a training sample costs, about."""

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """LLM tokens that scoring a batch costs, at most."""

    def batches(
        self, samples: Samples, *, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given) for scoring."""

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distance of every item [S, V], inf for those left out, and the teacher's states of the samples [S, F]."""

    def item_embedding(self) -> Tensor:
        """The teacher's embedding of every item, float32 [V, E], on any device."""

    def ranks(self, folder: Path | None = None) -> tuple[Ranked, Ranked, float] | None:
        """Ranks of the validation and of the test samples, with the 10 best items each, and the seconds it took.

        Where targets are new items (``data.new_validation``, ``data.new_test``), also their ranks among these alone.
        None where it ranks no whole part.

        Args:
            folder: may keep what is read, the same for all processes, so that a killed reading goes on; None: nothing.
        """

    def answers(self) -> JudgedAnswers | None:
        """Its written answers to the validation and test samples; None where it writes none."""

    def gate_weights(self, states: Tensor) -> Tensor | None:
        """Mixing weights of its experts [U, K] (or [U, N, K], by layer) at backbone states [U, D]; None: no gate."""

    def save(self, folder: Path) -> None:
        """Write a folder that `load` reads: everything that was trained, and not the LLM."""
