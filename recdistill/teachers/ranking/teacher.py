"""The ranking teacher: an LLM whose states score the whole catalogue."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from recdistill.config import StudentConfig, TeacherConfig, changed
from recdistill.config.option import option
from recdistill.data.batches import Batch, batches, seen_items
from recdistill.data.item_texts import item_texts
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.distillation.exclusion import without_kept
from recdistill.evaluation.evaluate import Ranked
from recdistill.registry import TEACHERS
from recdistill.students.student import Student
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.gated_teacher import GatedTeacher, gated_settings
from recdistill.teachers.ilora.text_reading import TextTokens
from recdistill.teachers.outputs import CONFIDENCE
from recdistill.teachers.protocol import Lesson
from recdistill.teachers.ranking.content import TEXT_ROWS
from recdistill.teachers.ranking.contrast import (
    check_contrast_kept,
    contrast_lesson,
    fit_from_start,
    states_of_samples,
)
from recdistill.teachers.ranking.lesson import ranking_lesson
from recdistill.teachers.ranking.model import (
    BackboneTables,
    ItemKnowledge,
    RankingModel,
    RankingShape,
    build_ranking_model,
    load_ranking_model,
)
from recdistill.teachers.ranking.prompt_length import check_prompts, check_window
from recdistill.teachers.ranking.ranks import ranks_of_samples
from recdistill.teachers.schedule import curve_of
from recdistill.teachers.shards import read_through
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.fit import Progress

TOKENS_A_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """Own options of a ranking teacher."""

    backbone_residual: bool = option(True, "the head's query starts from the backbone's state")
    plain_titles: bool = option(
        True, "titles in prompts without a year, and with their article first; false: as they are"
    )
    encode_users: bool = option(False, "begin a prompt with the backbone's state of the history before its first title")
    packing: bool = option(True, "supervise every item boundary of a window; false: one prompt a sample")
    teacher_window: int = option(
        40, "history titles in a packed prompt, at most", least=1, read_with={"packing": "true"}
    )
    teacher_text: str = option(
        "", "columns of the items file that its vector of an item reads, as title,genres; empty: title and all others",
        listed=True,
    )  # fmt: skip
    teacher_reading: Literal["echo", "mean", "prompt"] = option(
        "echo", "how its vector of an item's text comes: echo: text given twice, states of the second time; mean: of "
        "its states; prompt: state that would say it in one word",
    )  # fmt: skip
    contrast_token_budget: int = option(
        0, "LLM tokens of items' texts to train on first, by contrast; 0 leaves that out", role="budget", least=0
    )
    contrast_learning_rate: float = option(
        3e-4, "learning rate of LoRA and map in the contrast", above=0, read_with={"contrast_token_budget": "above 0"}
    )
    contrast_ridge: float = option(
        1.0, "weight of mapped texts being near the backbone's own rows", least=0,
        read_with={"contrast_token_budget": "above 0"},
    )  # fmt: skip
    contrast_kept: Literal["last", "validation"] = option(
        "last", "what the contrast keeps: its last weights; or those, the untrained ones among them, whose mapped "
        "texts rank the new items of validation best among themselves",
        read_with={"contrast_token_budget": "above 0"}, later=True,
    )  # fmt: skip


@TEACHERS.register("ranking", options=RankingOptions)
@dataclass(frozen=True, eq=False, kw_only=True)
class RankingTeacher(GatedTeacher):
    """A ranking teacher, its backbone and the data they score; see `protocol.Teacher`."""

    needs_llm: ClassVar[bool] = True
    needs_language_model_head: ClassVar[bool] = False
    confidence: ClassVar[str] = CONFIDENCE

    model: RankingModel

    @classmethod
    def build(
        cls,
        config: TeacherConfig,
        llm: BaseLLM | None,
        backbone: Student,
        data: SequenceData,
        processes: Processes = ALONE,
    ) -> Self:
        """A teacher before its training; it scores as its backbone. Raises InputError where parts do not fit."""
        assert llm is not None
        if config.value("contrast_token_budget"):
            check_contrast_kept(config.value("contrast_kept"), data)
        model = build_ranking_model(
            llm, shape_of(config), data.titles, tables_of(backbone), knowledge_of(config, data)
        ).to(processes.device)
        model.in_one_pass = processes.sharded
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        teacher = cls(model=model.eval(), backbone=backbone, data=data, config=config, processes=processes)
        check_prompts(teacher, llm.most_tokens)
        return teacher

    @classmethod
    def load(
        cls, folder: Path, config: TeacherConfig, llm: BaseLLM | None, backbone: Student, data: SequenceData
    ) -> Self:
        """The teacher of `save`. Raises InputError where a file is damaged, or LLM, backbone or catalogue differ."""
        assert llm is not None
        model = load_ranking_model(folder, llm, data.titles, tables_of(backbone), knowledge_of(config, data))
        own = cls(model=model, backbone=backbone, data=data, config=config)
        model.to(own.device)
        return own

    @classmethod
    def check(cls, config: TeacherConfig, most_tokens: int | None) -> None:
        """Raise InputError where a packed prompt of the options has more tokens than the LLM reads."""
        # The backbone's max_length bounds a prompt, too; that of a named run is known only when it is loaded.
        if config.value("packing") and not config.backbone_run_id:
            check_window(config, StudentConfig().max_length, most_tokens)

    @property
    def options(self) -> RankingOptions:
        """Its own options."""
        found: RankingOptions = self.config.of_part(TEACHERS, self.config.teacher)
        return found

    @property
    def packing(self) -> bool:
        """Whether samples share prompts."""
        return bool(self.config.value("packing"))

    @property
    def stride(self) -> int:
        """Samples of a prompt, at most."""
        if not self.packing:
            return 1
        return max(1, min(self.config.value("teacher_window"), self.window) - self.context + 1)

    def lesson(self) -> Lesson[Batch]:
        """Next-item cross-entropy over the catalogue."""
        return ranking_lesson(self)

    def learn_content(self, fit: Callable[[Lesson[Any], int], Progress], folder: Path | None = None) -> float:
        """Learn of the items' texts, where some items are no training target or a contrast is asked for.

        Returns the seconds that it took, those of killed runs too, and of titles and texts that the cache has had read.

        Args:
            fit: trains a lesson within a budget of tokens.
            folder: keeps what is read of the texts, so that a killed reading goes on.
        """
        content, seconds = self.model.content, self.model.title_seconds
        if content is None:
            return seconds
        states, taken = self.base_text_states(content.texts, folder and folder / "base")
        seconds += taken
        content.start(states)
        if self.options.contrast_token_budget:
            lesson = contrast_lesson(self, states_of_samples(self))
            progress = fit_from_start(lesson, fit, self.options.contrast_token_budget)
            states, again = self.text_states(content.texts, folder and folder / "contrast")
            seconds += progress.seconds + again
        content.learnt(states)
        self.model.take_content()
        return seconds

    @torch.no_grad()
    def text_states(self, texts: TextTokens, folder: Path | None = None) -> tuple[Tensor, float]:
        """`RankingModel.text_states` of all items [V, H], those of like length read together, and the seconds.

        ``folder`` is that of `read_through`.
        """

        def read(items: Tensor) -> dict[str, Tensor]:
            return {"item": items, "states": self.model.text_states(texts, items)}

        batches = torch.from_numpy(texts.lengths.argsort(kind="stable")).split(TEXT_ROWS)
        found, seconds = read_through(self.processes, batches, "items' texts", len(texts.read), folder, read)
        return found["states"][found["item"].argsort()].to(self.device), seconds

    def base_text_states(self, texts: TextTokens, folder: Path | None = None) -> tuple[Tensor, float]:
        """`text_states` while nothing is learnt, from the cache where they are kept there, with their first seconds."""
        kept = self.model.kept_text_states(texts)
        # All processes read, or none.
        known = self.processes.from_main(kept.read)
        if known is not None:
            return known.states.to(self.device), known.seconds or 0.0
        states, seconds = self.text_states(texts, folder)
        if self.processes.is_main:
            kept.keep(states, seconds)
        return states, seconds

    def item_view(self, folder: Path | None = None) -> Tensor:
        """The adapted LLM's states over the items' texts at the uniform gate, float32 [V, H].

        Those after the contrast, where there was one: the lesson after it is about sequences.
        """
        if self.model.content is not None and self.options.contrast_token_budget:
            return self.model.content.view
        texts = self.model.tokens_of_texts(texts_of(self.config, self.data), self.options.teacher_reading)
        return self.text_states(texts, folder)[0]

    def text_tokens(self) -> int:
        """See `CountsTexts`: texts once for the view of the items, and again where it learns of them before its lesson.

        Those of validation's new items each time that a contrast is looked at. Titles by the frozen LLM, for its head,
        and by the trained one, for the item embeddings.
        """
        content, titles = self.model.content, self.model.titles
        of_titles = 2 * len(titles.tokens) + len(titles.lengths) * (len(titles.instruction) + 1)
        if content is not None:
            return of_titles + 2 * len(content.texts.tokens) + self._validation_tokens(content.texts)
        texts = self.model.tokens_of_texts(texts_of(self.config, self.data), self.options.teacher_reading)
        return of_titles + len(texts.tokens)

    def _validation_tokens(self, texts: TextTokens) -> int:
        """Tokens of the texts that a contrast is chosen by: before it, and at each point of its curve."""
        budget = self.options.contrast_token_budget
        if not budget or self.options.contrast_kept != "validation":
            return 0
        points, _ = curve_of(changed(self.config, token_budget=budget))
        return (1 + points) * int(texts.lengths[self.data.new_validation].sum())

    def tokens_a_sample(self) -> float:
        """LLM tokens that a training sample costs, about."""
        weight = self.data.item_count / max(1, self.data.item_count.sum())
        title = float((self.model.titles.lengths + 1) @ weight)
        return (title * (self.stride + self.context - 1) + len(self.model.titles.instruction)) / self.stride

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [S, V] and the LLM's states [S, H] of a batch, on the device; differentiable."""
        return self.model(batch.history, batch.row, batch.column, self.states(batch))

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """The backbone's state after every item of the windows [W, L, D]; those at padding are not read."""
        windows, length = batch.history.shape
        row = torch.arange(windows).repeat_interleave(length)
        column = torch.arange(length).repeat(windows)
        full = torch.full((windows,), length)
        found = self.backbone(*(part.to(self.device) for part in (batch.history, full, row, column)))
        return found.view(windows, length, -1)

    def batches(
        self,
        samples: Samples,
        *,
        shuffle: bool,
        seed: int = 0,
        index: np.ndarray | None = None,
        stride: int | None = None,
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given) for scoring, of about 4,096 tokens.

        ``stride`` is how many samples share a prompt, at most; by default as many as may.
        """
        stride = self.stride if stride is None else stride
        titles_a_sample = (stride + self.context - 1) / stride
        tokens = float(self.model.titles.lengths.mean() + 1) * titles_a_sample
        return batches(
            samples,
            length=self.window,
            batch_size=max(stride, int(TOKENS_A_BATCH / tokens)),
            stride=stride,
            padding_id=self.data.padding_id,
            seed=seed,
            epoch=0,
            shuffle=shuffle,
            index=index,
        )

    def exclude(self, logits: Tensor, samples: Samples, index: Tensor, target: Tensor | None = None) -> Tensor:
        """The logits with the items of each sample's history at minus infinity, where seen ones are left out.

        Where targets [S] are given, a target that its history has too stays.
        """
        if not self.config.exclude_seen:
            return logits
        excluded = seen_items(samples, index, logits.device)
        if target is not None:
            excluded = without_kept(excluded, target.unsqueeze(1).to(logits.device))
        logits[excluded] = -torch.inf
        return logits

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """LLM tokens that scoring a batch costs."""
        return self.model.prompts(batch.history, batch.row, batch.column).num_tokens

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distance -log p(item) of every item [S, V], inf for those left out, and the LLM's states [S, H]."""
        logits, states = self.score(batch)
        return -self.exclude(logits, samples, batch.sample).log_softmax(dim=1), states

    def item_embedding(self) -> Tensor:
        """The trained LLM's state after each title, float32 [V, H]."""
        return self.model.item_embedding()

    def ranks(self, folder: Path | None = None) -> tuple[Ranked, Ranked, float]:
        """See `ranks_of_samples`."""
        return ranks_of_samples(self, folder)

    def answers(self) -> None:
        """It ranks, and writes nothing."""


def shape_of(config: TeacherConfig) -> RankingShape:
    """The ranking teacher of the options."""
    options = config.of_part(TEACHERS, config.teacher)
    return RankingShape(
        **gated_settings(config),
        residual=options.backbone_residual,
        packing=options.packing,
        context=config.teacher_history,
        plain_titles=options.plain_titles,
        encode_users=options.encode_users,
    )


def texts_of(config: TeacherConfig, data: SequenceData) -> tuple[str, ...]:
    """The items' texts that a teacher reads beside titles in prompts."""
    return item_texts(data.titles, data.item_columns, config.value("teacher_text"), "")


def knowledge_of(config: TeacherConfig, data: SequenceData) -> ItemKnowledge | None:
    """What a teacher needs that learns of items by their texts; None where none is asked for and all are trained."""
    if data.trained.all() and not config.value("contrast_token_budget"):
        return None
    return ItemKnowledge(texts_of(config, data), torch.as_tensor(data.item_count), config.value("teacher_reading"))


def tables_of(student: Student) -> BackboneTables:
    """The frozen student's tables that the teacher reads beside its states."""
    return BackboneTables(student.item_table().detach(), *student.output_layer())
