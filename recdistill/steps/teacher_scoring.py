"""A teacher at work beside its frozen backbone: ranks of samples, and the outputs that students read."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch, batches
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.distill.selection import query
from recdistill.evaluation.ranking import rank_of_target
from recdistill.steps.selection import signals_of_student
from recdistill.students.student import Student
from recdistill.teacher.ranking_teacher import RankingTeacher
from recdistill.teacher_outputs import Manifest, TeacherOutputs
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint

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
    """

    teacher: RankingTeacher
    backbone: Student
    data: SequenceData
    context: int
    most_titles: int
    exclude_seen: bool

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

    def exclude(self, logits: Tensor, samples: Samples, index: Tensor) -> Tensor:
        """The logits with the items of each sample's history at minus infinity, where seen ones are left out."""
        if not self.exclude_seen:
            return logits
        rows, items = samples.seen(index.numpy())
        logits[torch.from_numpy(rows).to(logits.device), torch.from_numpy(items).to(logits.device)] = -torch.inf
        return logits


@torch.inference_mode()
def ranks_of_samples(scorer: Scorer) -> tuple[Tensor, Tensor, float]:
    """Ranks of the validation and of the test samples, int64 [N] each, and the seconds it took.

    Both are read in one pass: a user's two samples share a prompt where they follow each other.
    """
    scorer.teacher.eval()
    started = time.perf_counter()
    data = scorer.data
    both, order = joined(data.validation, data.test)
    ranks = torch.empty(len(both), dtype=torch.int64)
    samples_a_user = -(-len(both) // len(np.unique(both.start)))
    stride = min(scorer.stride, samples_a_user) if scorer.teacher.shape.packing else 1
    with tqdm(total=len(both), desc="teacher ranks", leave=False) as bar:
        for batch in scorer.batches(both, stride, shuffle=False):
            logits, _ = scorer.score(batch)
            rows, items = (torch.from_numpy(part) for part in both.seen(batch.sample.numpy()))
            excluded = (rows, items) if scorer.exclude_seen else None
            ranks[batch.sample] = rank_of_target(logits, batch.target, excluded).cpu()
            bar.update(len(batch))
    in_order = torch.empty_like(ranks)
    in_order[torch.from_numpy(order)] = ranks
    return in_order[: len(data.validation)], in_order[len(data.validation) :], time.perf_counter() - started


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
def make_outputs(scorer: Scorer, config: TeacherConfig, llm: str, work: Path) -> TeacherOutputs:
    """Rankings of training samples within the token budget, and the embedding of all items.

    Under a budget the query policy says which samples come first. ``random`` draws whole windows, whose samples share
    a prompt; the others look at the backbone and ask for single samples, which cost more tokens each.

    Args:
        scorer: the trained teacher.
        config: budget, query policy, candidates kept, seed, packing.
        llm: name for the manifest.
        work: folder for shards, from which a killed scoring goes on.
    """
    scorer.teacher.eval()
    train = scorer.data.train
    kept = min(config.top_n, scorer.data.num_items)
    shards = Shards(work)
    budget = config.outputs_token_budget or float("inf")
    tokens = 0
    stride = scorer.stride if config.packing else 1
    index = asked_for(scorer, config)
    with tqdm(total=len(train) if index is None else len(index), desc="teacher outputs", leave=False) as bar:
        for position, batch in enumerate(scorer.batches(train, stride, shuffle=True, seed=config.seed, index=index)):
            tokens += scorer.teacher.prompts(batch.history, batch.row, batch.column).num_tokens
            if tokens > budget and position:
                break
            bar.update(len(batch))
            if position < shards.done:
                continue
            logits, states = scorer.score(batch)
            log_probs = scorer.exclude(logits, train, batch.sample).log_softmax(dim=1)
            best, ranking = log_probs.topk(kept, dim=1)
            found = {"sample": batch.sample, "ranking": ranking.to(torch.int32), "distance": -best}
            if config.sequence_embeddings:
                found["sequence_embedding"] = states
            shards.add(found)
    shards.write()
    tensors = shards.read()
    order = tensors["sample"].argsort()
    embedding = scorer.teacher.item_embedding().cpu()
    embedding = torch.nn.functional.normalize(embedding - embedding.mean(dim=0), dim=1)
    sequence = tensors.get("sequence_embedding")
    return TeacherOutputs(
        manifest=Manifest(
            fingerprint=scorer.data.fingerprint,
            llm=llm,
            num_items=scorer.data.num_items,
            num_samples=len(train),
            split=scorer.data.split,
            teacher="ranking",
        ),
        sample=tensors["sample"][order],
        ranking=tensors["ranking"][order].long(),
        # A history may leave fewer items than are kept: what is out has no chance, and a large distance.
        distance=tensors["distance"][order].clamp(max=torch.finfo(torch.float32).max / 2),
        item_embedding=embedding,
        sequence_embedding=None if sequence is None else sequence[order],
    )


def asked_for(scorer: Scorer, config: TeacherConfig) -> np.ndarray | None:
    """The training samples that the query policy asks for under the budget; None for all."""
    if not config.outputs_token_budget or config.query_policy == "random":
        return None
    everything = torch.ones(len(scorer.data.train), dtype=torch.bool)
    none_yet = torch.zeros(len(everything), 0, dtype=torch.int64)
    signals, _ = signals_of_student(scorer.backbone, scorer.data, everything, none_yet, config.seed)
    count = max(1, int(config.outputs_token_budget / scorer.tokens_a_sample(packed=False)))
    return query(config.query_policy, signals, count).numpy()


class Shards:
    """Results on disk as they come: a kill loses 20 seconds of them.

    Attributes:
        done: batches whose results are on disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: list[dict[str, Tensor]] = []
        self.written = time.perf_counter()
        self.done = 0
        self.paths: list[Path] = []
        while (path := folder / f"shard-{len(self.paths):05d}.safetensors").is_file():
            found = read_checkpoint(path)
            if found is None:
                break
            self.done = int(found[1]["batches"])
            self.paths.append(path)

    def add(self, found: dict[str, Tensor]) -> None:
        """Keep a batch's results."""
        self.waiting.append({name: tensor.cpu() for name, tensor in found.items()})
        if time.perf_counter() - self.written > SHARD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if self.waiting:
            path = self.folder / f"shard-{len(self.paths):05d}.safetensors"
            self.done += len(self.waiting)
            write_checkpoint(path, concatenated(self.waiting), {"batches": self.done})
            self.paths.append(path)
        self.waiting, self.written = [], time.perf_counter()

    def read(self) -> dict[str, Tensor]:
        """All results."""
        return concatenated([found[0] for path in self.paths if (found := read_checkpoint(path)) is not None])


def concatenated(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of the same name, one after another."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
