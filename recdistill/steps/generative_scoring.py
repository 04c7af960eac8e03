"""A generative teacher at work beside its frozen backbone: what it answers, and its answers grounded in the catalogue.

Two sets of candidates are offered. Answers are judged on the release's (`drawn_candidates`: the target among random
others). For rankings of the whole catalogue nobody knows the target: there the backbone's best items are offered
(`retrieved_candidates`), and the title that the teacher makes of them is grounded as in BIGRec.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recdistill.config import AnswerName, TeacherConfig
from recdistill.data.batches import Batch, batches, seen_items
from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.answers import answer_metrics, candidate_named, share_metrics
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.ranking import best_items, rank_of_target
from recdistill.steps.results import KEPT
from recdistill.steps.teaching import shared
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
from recdistill.teachers.generative.model import GenerativeModel
from recdistill.teachers.generative.grounding import CONFIDENCE, grounded_distances, normalised_popularity
from recdistill.training.distributed import ALONE, Processes

# What random numbers are for; with a sample's number they make a generator. Validation and test sets of candidates do
# not depend on the run's seed: runs are judged on the same.
JUDGED, RETRIEVED = 1, 2
TOKENS_A_BATCH = 4096


@dataclass(frozen=True, eq=False)
class GenerativeScorer:
    """A generative teacher, its backbone and the data they score.

    Attributes:
        teacher: on its device.
        backbone: the frozen student whose states the teacher's gate reads, on the same device.
        data: the samples' data.
        context: history titles in a prompt, at most.
        candidates: candidate titles in a prompt.
        answer: how the teacher answers.
        popularity_adjustment: gamma of `grounded_distances`.
        exclude_seen: whether a history's items are left out of rankings.
        processes: those that score together, each a share of the batches.
    """

    teacher: GenerativeModel
    backbone: Student
    data: SequenceData
    context: int
    candidates: int
    answer: AnswerName
    popularity_adjustment: float
    exclude_seen: bool
    processes: Processes = ALONE

    kind = "generative"

    @property
    def confidence(self) -> str:
        """What a distance is, for the manifest."""
        return CONFIDENCE.format(gamma=self.popularity_adjustment)

    @property
    def window(self) -> int:
        """Items that the backbone reads: as many as it was trained on."""
        return self.backbone.max_length

    @property
    def stride(self) -> int:
        """Samples of a prompt: one."""
        return 1

    @cached_property
    def title_embedding(self) -> Tensor:
        """The base LLM's embedding of every title, float32 [V, H], on the teacher's device."""
        return self.teacher.embed_texts(self.data.titles)

    @cached_property
    def popularity(self) -> Tensor:
        """How popular each item is, float32 [V] in [0, 1], on the teacher's device."""
        return normalised_popularity(torch.from_numpy(self.data.item_count)).to(self.teacher.item_table.device)

    def tokens_a_sample(self, packed: bool) -> float:
        """LLM tokens that a training sample costs, about; prompts are never packed."""
        parts = self.teacher.parts
        weight = self.data.item_count / max(1, self.data.item_count.sum())
        of_history, of_candidate = (parts.titles.lengths + 1) @ weight, (parts.titles.lengths + 1).mean()
        around = np.mean([sum(map(len, wording)) for wording in parts.wordings])
        listed = np.minimum(self.data.train.end - self.data.train.start, self.context).mean()
        return float(around + listed * of_history + self.candidates * of_candidate + of_history)

    def batches(
        self, samples: Samples, stride: int, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given), a window each, of about 4,096 tokens."""
        return batches(
            samples,
            length=self.window,
            batch_size=max(1, int(TOKENS_A_BATCH / self.tokens_a_sample(packed=False))),
            stride=stride,
            padding_id=self.data.padding_id,
            seed=seed,
            epoch=0,
            shuffle=shuffle,
            index=index,
        )

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """The backbone's state of each sample [S, D]."""
        device = next(self.backbone.parameters()).device
        parts = (batch.history, batch.length, batch.row, batch.column)
        return self.backbone(*(part.to(device) for part in parts))

    def histories(self, batch: Batch) -> list[Int64Array]:
        """The last items of each sample's history, oldest first, at most ``context``."""
        places = zip(batch.row.tolist(), (batch.column + 1).tolist(), strict=True)
        return [batch.history[row, max(0, end - self.context) : end].numpy() for row, end in places]

    def drawn_candidates(self, samples: Samples, batch: Batch, *seed: int) -> Int64Array:
        """For each sample its target among random items that its whole history lacks, int64 [S, K] (iLoRA)."""
        return np.stack(
            [
                draw_candidates(
                    samples.items[samples.start[sample] : samples.end[sample]],
                    int(samples.items[samples.end[sample]]),
                    self.data.num_items,
                    self.candidates,
                    np.random.default_rng([*seed, sample]),
                )
                for sample in batch.sample.tolist()
            ]
        )

    @torch.no_grad()
    def retrieved_candidates(self, samples: Samples, batch: Batch, states: Tensor) -> Int64Array:
        """For each sample the items that the backbone ranks first, in random order, int64 [S, K]."""
        logits = self.backbone.logits(states)
        excluded = self.excluded(samples, batch)
        if excluded is not None:
            logits[tuple(part.to(logits.device) for part in excluded)] = -torch.inf
        best = logits.topk(self.candidates, dim=1).indices.cpu().numpy()
        drawn = (np.random.default_rng([RETRIEVED, sample]) for sample in batch.sample.tolist())
        return np.stack([random.permutation(row) for random, row in zip(drawn, best, strict=True)])

    def answers(self, batch: Batch, candidates: Int64Array, states: Tensor) -> tuple[list[str], Int64Array]:
        """The titles that the teacher answers with, and the candidates that they name, int64 [S], -1 for none."""
        parts, titles = self.teacher.parts, self.data.titles
        wording = (batch.sample % len(parts.wordings)).tolist()
        prompts = answer_prompts(parts, self.histories(batch), candidates, wording)
        if self.answer == "free":
            texts = free_answers(self.teacher, prompts, states)
            offered = [[titles[item] for item in row] for row in candidates]
            named = [candidate_named(text, row) for text, row in zip(texts, offered, strict=True)]
            return texts, np.array(named, dtype=np.int64)
        if self.answer == "constrained":
            places = constrained_answers(self.teacher, prompts, states, candidates)
        else:
            scores = candidate_log_likelihoods(self.teacher, prompts, states, candidates)
            places = scores.argmax(dim=1).cpu().numpy()
        return [titles[item] for item in candidates[np.arange(len(places)), places]], places

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """LLM tokens, padding and all, that answers to a batch and their grounding cost at most."""
        lengths = self.teacher.parts.titles.lengths
        candidates = self.retrieved_candidates(samples, batch, self.states(batch))
        around = max(sum(map(len, wording)) for wording in self.teacher.parts.wordings)
        listed = zip(self.histories(batch), candidates, strict=True)
        width = around + max(int((lengths[history] + 1).sum() + (lengths[row] + 1).sum()) for history, row in listed)
        most = most_free_tokens(self.teacher)
        longest = most_answer_tokens(self.teacher, candidates)
        written = {"free": most, "constrained": longest, "likelihood": self.candidates * longest}[self.answer]
        return len(batch) * (width + written + most)

    def grounded(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distance of every item to the title answered [S, V], and that title's embedding [S, H]."""
        states = self.states(batch)
        texts, _ = self.answers(batch, self.retrieved_candidates(samples, batch, states), states)
        written = self.teacher.embed_texts(texts)
        return grounded_distances(written, self.title_embedding, self.popularity, self.popularity_adjustment), written

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `grounded`, at infinity what is left out of rankings."""
        distance, written = self.grounded(samples, batch)
        excluded = self.excluded(samples, batch)
        if excluded is not None:
            distance[tuple(part.to(distance.device) for part in excluded)] = torch.inf
        return distance, written

    def excluded(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Coordinates (row, item) of what is left out of rankings, on the CPU; None for nothing."""
        return seen_items(samples, batch.sample) if self.exclude_seen else None

    def ranks(self) -> tuple[Ranked, Ranked, float]:
        """See `grounded_ranks`."""
        return grounded_ranks(self)

    def item_embedding(self) -> Tensor:
        """The base LLM's embedding of every title, float32 [V, H], on the CPU."""
        return self.title_embedding.cpu()


def generative_scorer(
    config: TeacherConfig,
    model: GenerativeModel,
    student: Student,
    data: SequenceData,
    processes: Processes = ALONE,
) -> GenerativeScorer:
    """The teacher beside its backbone, on this data, its work shared by these processes."""
    return GenerativeScorer(
        teacher=model,
        backbone=student,
        data=data,
        context=config.teacher_history,
        candidates=config.candidates,
        answer=config.answer,
        popularity_adjustment=config.popularity_adjustment,
        exclude_seen=config.exclude_seen,
        processes=processes,
    )


class Judged(NamedTuple):
    """An answer: what was written, and which candidates it names (-1: none), would be right and the backbone's best."""

    text: str
    named: int
    right: int
    of_backbone: int
    item: int


@torch.inference_mode()
def judged_answers(scorer: GenerativeScorer, part: str, samples: Samples) -> tuple[dict[str, float], pd.DataFrame]:
    """ValidRatio and HitRatio@1 of iLoRA on a part (`answer_metrics`, named ``part/valid_ratio`` and so on).

    Beside them ``part/backbone_hit_ratio_at_1``, how often the backbone ranks the target first of the same candidates.
    Also returns a row a sample: ``user`` and ``item`` (the target), ids as the source writes them; ``title`` of the
    target; ``answer``, what the teacher wrote; ``named``, the id of the candidate that it names, or none.
    """
    scorer.teacher.eval()
    found: dict[int, Judged] = {}
    read = scorer.batches(samples, scorer.stride, shuffle=False)
    for _, batch, _ in shared(scorer.processes, read, f"{part} answers", len(samples)):
        candidates, states = scorer.drawn_candidates(samples, batch, JUDGED), scorer.states(batch)
        texts, named = scorer.answers(batch, candidates, states)
        right = (candidates == batch.target.numpy()[:, None]).argmax(axis=1)
        of_backbone = scorer.backbone.logits(states).cpu().gather(1, torch.from_numpy(candidates)).argmax(dim=1)
        items = np.where(named < 0, -1, candidates[np.arange(len(named)), named])
        rows = map(Judged, texts, named.tolist(), right.tolist(), of_backbone.tolist(), items.tolist())
        found |= dict(zip(batch.sample.tolist(), rows, strict=True))
    for other in scorer.processes.gathered(found):
        found |= other
    answers, data = [found[sample] for sample in range(len(samples))], scorer.data
    metrics = answer_metrics([one.named for one in answers], [one.right for one in answers])
    hits = sum(one.of_backbone == one.right for one in answers)
    metrics |= share_metrics("backbone_hit_ratio_at_1", hits, len(answers))
    table = pd.DataFrame(
        {
            "user": np.asarray(data.user_ids, dtype=object)[samples.user],
            "item": np.asarray(data.item_ids, dtype=object)[samples.targets],
            "title": [data.titles[item] for item in samples.targets],
            "answer": [one.text for one in answers],
            "named": [data.item_ids[one.item] if one.named >= 0 else None for one in answers],
        }
    )
    return {f"{part}/{name}": value for name, value in metrics.items()}, table


@torch.inference_mode()
def grounded_ranks(scorer: GenerativeScorer) -> tuple[Ranked, Ranked, float]:
    """What grounded answers make of the validation and of the test samples, and the seconds it took."""
    scorer.teacher.eval()
    started = time.perf_counter()
    ranked = []
    for part, samples in (("validation", scorer.data.validation), ("test", scorer.data.test)):
        ranks = torch.zeros(len(samples), dtype=torch.int64)
        best = torch.zeros(len(samples), KEPT, dtype=torch.int64)
        read = scorer.batches(samples, scorer.stride, shuffle=False)
        for _, batch, _ in shared(scorer.processes, read, f"{part} ranks", len(samples)):
            scores, excluded = -scorer.grounded(samples, batch)[0], scorer.excluded(samples, batch)
            ranks[batch.sample] = rank_of_target(scores, batch.target, excluded).cpu()
            best[batch.sample] = best_items(scores, KEPT, batch.target, excluded).cpu()
        ranked.append(Ranked(scorer.processes.sum(ranks), scorer.processes.sum(best)))
    return ranked[0], ranked[1], time.perf_counter() - started
