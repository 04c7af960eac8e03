"""The generative teacher: an LLM that writes the title of the next item, grounded in the catalogue.

Two sets of candidates are offered. Answers are judged on the release's (`drawn_candidates`: the target among random
others). For rankings of the whole catalogue nobody knows the target: there the backbone's best items are offered
(`retrieved_candidates`), and the title that the teacher makes of them is grounded as in BIGRec.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.config.option import option
from recdistill.data.batches import Batch, batches
from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.answers import candidate_named
from recdistill.evaluation.evaluate import Ranked
from recdistill.registry import TEACHERS
from recdistill.students.student import Student
from recdistill.teachers.generative.answers import (
    candidate_log_likelihoods,
    constrained_answers,
    free_answers,
    most_answer_tokens,
    most_free_tokens,
)
from recdistill.teachers.generative.candidate_prompts import answer_prompts
from recdistill.teachers.generative.candidates import draw_candidates
from recdistill.teachers.generative.grounding import CONFIDENCE, grounded_distances, normalised_popularity
from recdistill.teachers.generative.judging import judged_parts
from recdistill.teachers.generative.lesson import NumberedBatch, generative_lesson
from recdistill.teachers.generative.model import (
    GenerativeModel,
    GenerativeShape,
    build_generative_model,
    load_generative_model,
)
from recdistill.teachers.generative.prompt_length import check_candidates, check_prompts
from recdistill.teachers.generative.ranks import grounded_ranks
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.gated_teacher import GatedTeacher, gated_settings
from recdistill.teachers.ilora.titles import MAX_TITLE_TOKENS
from recdistill.teachers.protocol import JudgedAnswers, Lesson
from recdistill.training.distributed import ALONE, Processes

# First number of the seed of the order of a sample's candidates; another than `judging.JUDGED`.
RETRIEVED = 2
TOKENS_A_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class GenerativeOptions:
    """Own options of a generative teacher."""

    answer: Literal["free", "constrained", "likelihood"] = option(
        "free", "free, constrained to the candidates' titles, or the likelihood of each (of these the most tokens)"
    )
    domain: Literal["item", "movie", "music", "game"] = option("item", "whose words the prompts are in")
    candidates: int = option(20, "titles to choose from in a prompt", least=2)
    encode_users: bool = option(False, "begin a prompt with the backbone's state of the history before its first title")
    curriculum: bool = option(True, "text alone at first, item embeddings in ever more batches; false: in all of them")
    popularity_adjustment: float = option(
        0.0, "grounded distances are multiplied by (1 + popularity) to the power of minus this", least=0
    )


@TEACHERS.register("generative", options=GenerativeOptions)
@dataclass(frozen=True, eq=False, kw_only=True)
class GenerativeTeacher(GatedTeacher):
    """A generative teacher, its backbone and the data they score; see `protocol.Teacher`."""

    needs_llm: ClassVar[bool] = True
    needs_language_model_head: ClassVar[bool] = True

    model: GenerativeModel

    @classmethod
    def build(
        cls,
        config: TeacherConfig,
        llm: BaseLLM | None,
        backbone: Student,
        data: SequenceData,
        processes: Processes = ALONE,
    ) -> Self:
        """A teacher before its training. Raises InputError where parts do not fit."""
        assert llm is not None
        if processes.sharded:
            raise InputError("--use_fsdp: a generative teacher writes its answers over a whole base; launch without it")
        model = build_generative_model(llm, shape_of(config), data.titles, backbone.item_table().detach())
        model.to(processes.device)
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
        model = load_generative_model(folder, llm, data.titles, backbone.item_table().detach())
        own = cls(model=model, backbone=backbone, data=data, config=config)
        model.to(own.device)
        return own

    @classmethod
    def check(cls, config: TeacherConfig, most_tokens: int | None) -> None:
        """Raise InputError where a prompt of so many candidates has more tokens than the LLM reads."""
        check_candidates(config, most_tokens)

    @cached_property
    def options(self) -> GenerativeOptions:
        """Its own options."""
        options: GenerativeOptions = self.config.of_part(TEACHERS, self.config.teacher)
        return options

    @property
    def confidence(self) -> str:
        """How a distance is defined, for the manifest."""
        return CONFIDENCE.format(gamma=self.options.popularity_adjustment)

    @cached_property
    def title_embedding(self) -> Tensor:
        """The base LLM's embedding of every title, float32 [V, H], on the model's device."""
        return self.model.embed_texts(self.data.titles)

    @cached_property
    def titles_as_read(self) -> list[str]:
        """V titles as prompts offer them and answers are taught to name them: cut after `MAX_TITLE_TOKENS`."""
        found, read = list(self.data.titles), self.model.parts.titles
        for item in np.flatnonzero(read.lengths >= MAX_TITLE_TOKENS).tolist():
            ids = read.tokens[read.start[item] : read.start[item + 1]]
            found[item] = self.model.tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
        return found

    @cached_property
    def popularity(self) -> Tensor:
        """How popular each item is, float32 [V] in [0, 1], on the model's device."""
        return normalised_popularity(torch.from_numpy(self.data.item_count)).to(self.model.item_table.device)

    def lesson(self) -> Lesson[NumberedBatch]:
        """Candidate prompts and their answers."""
        return generative_lesson(self)

    def tokens_a_sample(self) -> float:
        """LLM tokens that a training sample costs, about; prompts are never packed."""
        parts = self.model.parts
        weight = self.data.item_count / max(1, self.data.item_count.sum())
        of_history, of_candidate = (parts.titles.lengths + 1) @ weight, (parts.titles.lengths + 1).mean()
        around = np.mean([sum(map(len, template)) for template in parts.templates])
        listed = np.minimum(self.data.train.end - self.data.train.start, self.context).mean()
        return float(around + listed * of_history + self.options.candidates * of_candidate + of_history)

    def text_tokens(self) -> int:
        """See `CountsTexts`: every title once, by itself."""
        return self.model.num_text_tokens(self.data.titles)

    def batches(
        self, samples: Samples, *, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given), a window each, of about 4,096 tokens."""
        return batches(
            samples,
            length=self.window,
            batch_size=max(1, int(TOKENS_A_BATCH / self.tokens_a_sample())),
            stride=1,
            padding_id=self.data.padding_id,
            seed=seed,
            epoch=0,
            shuffle=shuffle,
            index=index,
        )

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """The backbone's state of each sample [S, D]."""
        parts = (batch.history, batch.length, batch.row, batch.column)
        return self.backbone(*(part.to(self.device) for part in parts))

    def histories(self, batch: Batch) -> list[Int64Array]:
        """The last items of each sample's history, oldest first, at most ``teacher_history``."""
        places = zip(batch.row.tolist(), (batch.column + 1).tolist(), strict=True)
        return [batch.history[row, max(0, end - self.context) : end].numpy() for row, end in places]

    @torch.no_grad()
    def users_before(self, batch: Batch) -> Tensor | None:
        """The backbone's state of each sample's history before `histories` [S, D], zeros where there is none.

        None where prompts have no user.
        """
        if self.model.user_projector is None:
            return None
        before = batch.column - self.context
        parts = (batch.history, batch.length, batch.row, before.clamp(min=0))
        states = self.backbone(*(part.to(self.device) for part in parts))
        return states.masked_fill((before < 0).unsqueeze(1).to(states.device), 0.0)

    def drawn_candidates(self, samples: Samples, batch: Batch, *seed: int) -> Int64Array:
        """For each sample its target among random items that its whole history lacks, int64 [S, K] (iLoRA)."""
        targets = samples.targets
        return np.stack(
            [
                draw_candidates(
                    samples.items[samples.start[sample] : samples.end[sample]],
                    int(targets[sample]),
                    self.data.num_items,
                    self.options.candidates,
                    np.random.default_rng([*seed, number]),
                )
                for sample, number in zip(batch.sample.tolist(), numbers_of(samples, batch), strict=True)
            ]
        )

    @torch.no_grad()
    def retrieved_candidates(self, samples: Samples, batch: Batch, states: Tensor) -> Int64Array:
        """For each sample the items that the backbone ranks first, in random order, int64 [S, K]."""
        logits = self.backbone.logits(states)
        excluded = self.excluded(samples, batch)
        if excluded is not None:
            logits[tuple(part.to(logits.device) for part in excluded)] = -torch.inf
        best = logits.topk(self.options.candidates, dim=1).indices.cpu().numpy()
        drawn = (np.random.default_rng([RETRIEVED, number]) for number in numbers_of(samples, batch))
        return np.stack([random.permutation(row) for random, row in zip(drawn, best, strict=True)])

    def written(
        self, samples: Samples, batch: Batch, candidates: Int64Array, states: Tensor
    ) -> tuple[list[str], Int64Array]:
        """The titles that it writes for a batch, and the candidates that they name, int64 [S], -1 for none."""
        parts, titles = self.model.parts, self.data.titles
        template = [number % len(parts.templates) for number in numbers_of(samples, batch)]
        prompts = answer_prompts(parts, self.histories(batch), candidates, template, self.users_before(batch))
        if self.options.answer == "free":
            texts = free_answers(self.model, prompts, states)
            offered = [[self.titles_as_read[item] for item in row] for row in candidates]
            named = [candidate_named(text, row) for text, row in zip(texts, offered, strict=True)]
            return texts, np.array(named, dtype=np.int64)
        if self.options.answer == "constrained":
            places = constrained_answers(self.model, prompts, states, candidates)
        elif self.options.answer == "likelihood":
            scores = candidate_log_likelihoods(self.model, prompts, states, candidates)
            places = scores.argmax(dim=1).cpu().numpy()
        else:
            raise InputError(f"answer={self.options.answer}: must be one of free, constrained, likelihood")
        return [titles[item] for item in candidates[np.arange(len(places)), places]], places

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """LLM tokens, padding and all, that answers to a batch and their grounding cost at most."""
        lengths = self.model.parts.titles.lengths
        candidates = self.retrieved_candidates(samples, batch, self.states(batch))
        around = max(sum(map(len, template)) for template in self.model.parts.templates)
        listed = zip(self.histories(batch), candidates, strict=True)
        width = around + max(int((lengths[history] + 1).sum() + (lengths[row] + 1).sum()) for history, row in listed)
        most = most_free_tokens(self.model)
        longest = most_answer_tokens(self.model, candidates)
        written = {"free": most, "constrained": longest, "likelihood": self.options.candidates * longest}
        return len(batch) * (width + written[self.options.answer] + most)

    def grounded(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distance of every item to the title written [S, V], and that title's embedding [S, H]."""
        states = self.states(batch)
        texts, _ = self.written(samples, batch, self.retrieved_candidates(samples, batch, states), states)
        embedding = self.model.embed_texts(texts)
        gamma = self.options.popularity_adjustment
        return grounded_distances(embedding, self.title_embedding, self.popularity, gamma), embedding

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `grounded`, with items that are left out of rankings at infinity."""
        distance, embedding = self.grounded(samples, batch)
        excluded = self.excluded(samples, batch)
        if excluded is not None:
            distance[tuple(part.to(distance.device) for part in excluded)] = torch.inf
        return distance, embedding

    def item_embedding(self) -> Tensor:
        """The base LLM's embedding of every title, float32 [V, H], on the CPU."""
        return self.title_embedding.cpu()

    def ranks(self, folder: Path | None = None) -> tuple[Ranked, Ranked, float]:
        """See `grounded_ranks`."""
        return grounded_ranks(self, folder)

    def answers(self) -> JudgedAnswers:
        """Its answers to the validation and test samples, judged."""
        return judged_parts(self)


def numbers_of(samples: Samples, batch: Batch) -> list[int]:
    """What seeds that which is drawn for each sample of a batch, whoever else's samples are there [S]."""
    numbers: list[int] = samples.numbers[batch.sample.numpy()].tolist()
    return numbers


def shape_of(config: TeacherConfig) -> GenerativeShape:
    """The generative teacher of the options."""
    options = config.of_part(TEACHERS, config.teacher)
    return GenerativeShape(**gated_settings(config), domain=options.domain, encode_users=options.encode_users)
