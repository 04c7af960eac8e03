"""A teacher at work beside its frozen backbone: ranks of samples, and the outputs that students read."""

import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch, batches, seen_items
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.distill.exclusion import less_kept
from recdistill.distill.selection import query
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.ranking import best_items, rank_of_target
from recdistill.steps.results import KEPT
from recdistill.steps.selection import policy_named, signals_of_student
from recdistill.steps.teaching import Scoring, shared
from recdistill.students.student import Student
from recdistill.teachers.ranking.model import RankingModel
from recdistill.teachers.outputs import CONFIDENCE, Manifest, TeacherOutputs
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint
from recdistill.training.distributed import ALONE, Processes

SHARD_SECONDS = 20.0
TOKENS_A_BATCH = 4096


@dataclass(frozen=True, eq=False)
class Scorer:
    """A ranking teacher, its backbone and the data they score.

    Attributes:
        teacher: on its device.
        backbone: the frozen student whose states the teacher reads, on the same device.
        data: the samples' data.
        context: history titles of a sample in its prompt, at least.
        most_titles: history titles in a packed prompt, at most.
        exclude_seen: whether a history's items are left out of rankings.
        processes: those that score together, each a share of the batches.
    """

    teacher: RankingModel
    backbone: Student
    data: SequenceData
    context: int
    most_titles: int
    exclude_seen: bool
    processes: Processes = ALONE

    kind = "ranking"
    confidence = CONFIDENCE

    @property
    def window(self) -> int:
        """Items that the backbone reads: as many as it was trained on, and at least the prompt's."""
        return self.backbone.max_length

    @property
    def stride(self) -> int:
        """Samples of a packed prompt, at most."""
        return max(1, min(self.most_titles, self.window) - self.context + 1)

    def tokens_a_sample(self, packed: bool) -> float:
        """LLM tokens that a training sample costs, about."""
        weight = self.data.item_count / max(1, self.data.item_count.sum())
        title = float((self.teacher.titles.lengths + 1) @ weight)
        samples = self.stride if packed else 1
        return (title * (samples + self.context - 1) + len(self.teacher.titles.instruction)) / samples

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [S, V] and the LLM's states [S, H] of a batch, on the device; differentiable."""
        return self.teacher(batch.history, batch.row, batch.column, self.states(batch))

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """The backbone's state after every item of the windows [W, L, D]; what stands at padding is not read."""
        windows, length = batch.history.shape
        device = next(self.backbone.parameters()).device
        row = torch.arange(windows).repeat_interleave(length)
        column = torch.arange(length).repeat(windows)
        full = torch.full((windows,), length)
        found = self.backbone(*(part.to(device) for part in (batch.history, full, row, column)))
        return found.view(windows, length, -1)

    def batches(
        self, samples: Samples, stride: int, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Packed batches of samples (those at ``index``, where given) for scoring, of about 4,096 tokens."""
        titles_a_sample = (stride + self.context - 1) / stride
        tokens = float(self.teacher.titles.lengths.mean() + 1) * titles_a_sample
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
        if not self.exclude_seen:
            return logits
        excluded = seen_items(samples, index, logits.device)
        if target is not None:
            excluded = less_kept(excluded, target.unsqueeze(1).to(logits.device))
        logits[excluded] = -torch.inf
        return logits

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """LLM tokens that scoring a batch costs."""
        return self.teacher.prompts(batch.history, batch.row, batch.column).num_tokens

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distance -log p(item) of every item [S, V], inf for those left out, and the LLM's states [S, H]."""
        logits, states = self.score(batch)
        return -self.exclude(logits, samples, batch.sample).log_softmax(dim=1), states

    def item_embedding(self) -> Tensor:
        """The trained LLM's state after each title, float32 [V, H]."""
        return self.teacher.item_embedding()

    def ranks(self) -> tuple[Ranked, Ranked, float]:
        """See `ranks_of_samples`."""
        return ranks_of_samples(self)


@torch.inference_mode()
def ranks_of_samples(scorer: Scorer) -> tuple[Ranked, Ranked, float]:
    """What it makes of the validation and of the test samples, and the seconds it took.

    Both are read in one pass: a user's two samples share a prompt where they follow each other.
    """
    scorer.teacher.eval()
    started = time.perf_counter()
    data = scorer.data
    both, order = joined(data.validation, data.test)
    ranks = torch.zeros(len(both), dtype=torch.int64)
    best = torch.zeros(len(both), KEPT, dtype=torch.int64)
    samples_a_user = -(-len(both) // len(np.unique(both.start)))
    stride = min(scorer.stride, samples_a_user) if scorer.teacher.shape.packing else 1
    read = scorer.batches(both, stride, shuffle=False)
    for _, batch, wanted in shared(scorer.processes, read, "teacher ranks", len(both)):
        logits, _ = scorer.score(batch)
        if not wanted:
            continue
        excluded = seen_items(both, batch.sample) if scorer.exclude_seen else None
        ranks[batch.sample] = rank_of_target(logits, batch.target, excluded).cpu()
        best[batch.sample] = best_items(logits, KEPT, batch.target, excluded).cpu()
    ranks, best = scorer.processes.sum(ranks), scorer.processes.sum(best)
    place = torch.from_numpy(order).argsort()
    validation, test = (Ranked(ranks[part], best[part]) for part in place.split([len(data.validation), len(data.test)]))
    return validation, test, time.perf_counter() - started


def joined(first: Samples, second: Samples) -> tuple[Samples, np.ndarray]:
    """Both samples as one, each user's in order of time, and the place that each had, first's before second's.

    Both share one flat item array, or are laid one after the other.
    """
    if first.items is second.items:
        items, shift = first.items, 0
    else:
        items, shift = np.concatenate([first.items, second.items]), len(first.items)
    start, end = np.concatenate([first.start, second.start + shift]), np.concatenate([first.end, second.end + shift])
    user = np.concatenate([first.user, second.user])
    order = np.lexsort((end, start))
    return Samples(items, start[order], end[order], user[order]), order


@torch.inference_mode()
def make_outputs(scorer: Scoring, config: TeacherConfig, llm: str, work: Path) -> TeacherOutputs | None:
    """Rankings of training samples within the token budget, and the embedding of all items.

    Under a budget the query policy says which samples come first. ``random`` draws whole windows, whose samples share
    a prompt; the others look at the backbone and ask for single samples, which cost more tokens each.

    Args:
        scorer: the trained teacher.
        config: budget, query policy, candidates kept, seed, packing.
        llm: name for the manifest.
        work: folder for shards, from which a killed scoring goes on, the same for all processes.

    Returns None in all processes but the main one, which has the outputs of all.
    """
    scorer.teacher.eval()
    train = scorer.data.train
    kept = min(config.top_n, scorer.data.num_items)
    shards = Shards(work, scorer.processes.index)
    # None writes before all have seen what is there.
    scorer.processes.wait()
    index = scorer.processes.from_main(lambda: asked_for(scorer, config))
    total = len(train) if index is None else len(index)
    affordable = affordable_batches(scorer, config, index)
    for place, batch, wanted in shared(scorer.processes, affordable, "teacher outputs", total, shards.done):
        distances, states = scorer.outputs(train, batch)
        if not wanted:
            continue
        nearest, ranking = distances.topk(kept, dim=1, largest=False)
        found = {"sample": batch.sample, "ranking": ranking.to(torch.int32), "distance": nearest}
        if config.sequence_embeddings:
            found["sequence_embedding"] = states
        shards.add(place, found)
    shards.write()
    embedding = scorer.item_embedding().cpu()
    scorer.processes.wait()
    if not scorer.processes.is_main:
        return None
    tensors = shards.read()
    order = tensors["sample"].argsort()
    embedding = torch.nn.functional.normalize(embedding - embedding.mean(dim=0), dim=1)
    sequence = tensors.get("sequence_embedding")
    return TeacherOutputs(
        manifest=Manifest(
            fingerprint=scorer.data.fingerprint,
            llm=llm,
            num_items=scorer.data.num_items,
            num_samples=len(train),
            split=scorer.data.split,
            teacher=scorer.kind,
            confidence=scorer.confidence,
        ),
        sample=tensors["sample"][order],
        ranking=tensors["ranking"][order].long(),
        # A history may leave fewer items than are kept: what is out has no chance, and a large distance.
        distance=tensors["distance"][order].clamp(max=torch.finfo(torch.float32).max / 2),
        item_embedding=embedding,
        sequence_embedding=None if sequence is None else sequence[order],
    )


def affordable_batches(scorer: Scoring, config: TeacherConfig, index: np.ndarray | None) -> Iterator[Batch]:
    """Batches of the training samples at ``index`` (None: of all) that the token budget pays for, at least one."""
    budget = config.outputs_token_budget
    stride = scorer.stride if config.packing else 1
    tokens = 0
    samples = scorer.data.train
    # What a policy asks for fits the budget, in this order.
    shuffle = index is None
    for place, batch in enumerate(scorer.batches(samples, stride, shuffle=shuffle, seed=config.seed, index=index)):
        if budget:
            tokens += scorer.num_tokens(samples, batch)
            if tokens > budget and place:
                return
        yield batch


def asked_for(scorer: Scoring, config: TeacherConfig) -> np.ndarray | None:
    """The training samples that the query policy wants most, as many as the budget pays for; None for all."""
    if not config.outputs_token_budget or config.query_policy == "random":
        return None
    everything = torch.ones(len(scorer.data.train), dtype=torch.bool)
    none_yet = torch.zeros(len(everything), 0, dtype=torch.int64)
    signals, _ = signals_of_student(
        scorer.backbone, scorer.data, everything, none_yet, config.seed, config.exclude_seen
    )
    policy, train = policy_named(config.query_policy, config.policy_file), scorer.data.train
    budget, stride = config.outputs_token_budget, scorer.stride if config.packing else 1
    most = min(len(train), 1 + int(2 * budget / scorer.tokens_a_sample(config.packing)))
    wanted = query(policy, signals, most).numpy()

    def cost(count: int) -> int:
        # Samples that adjoin share a prompt: what they cost together is known only when they are laid out.
        read = scorer.batches(train, stride, shuffle=False, index=wanted[:count])
        return sum(scorer.num_tokens(train, batch) for batch in read)

    return wanted[: max(1, bisect_right(range(1, len(wanted) + 1), budget, key=cost))]


class Shards:
    """Results on disk as they come, in one folder for all processes: a kill loses 20 seconds of them.

    Attributes:
        done: places of the batches whose results were on disk at first.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self.process = process
        self.waiting: list[dict[str, Tensor]] = []
        self.places: list[int] = []
        self.written = time.perf_counter()
        self.done = {place for _, values in self.on_disk() for place in values["places"]}

    def add(self, place: int, found: dict[str, Tensor]) -> None:
        """Keep the results of the batch at a place."""
        self.waiting.append({name: tensor.cpu() for name, tensor in found.items()})
        self.places.append(place)
        if time.perf_counter() - self.written > SHARD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if self.waiting:
            number = len(list(self.folder.glob(f"shard-{self.process:03d}-*.safetensors")))
            path = self.folder / f"shard-{self.process:03d}-{number:05d}.safetensors"
            write_checkpoint(path, concatenated(self.waiting), {"places": self.places})
        self.waiting, self.places, self.written = [], [], time.perf_counter()

    def read(self) -> dict[str, Tensor]:
        """All results, of all processes."""
        return concatenated([tensors for tensors, _ in self.on_disk()])

    def on_disk(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        """Every shard that can be read; the batches of another one are computed again."""
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            found = read_checkpoint(path)
            if found is not None:
                yield found


def concatenated(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of the same name, one after another."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
