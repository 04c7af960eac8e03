"""The lesson before a ranking teacher's own: an item's text is near the states of the users who took the item.

The adapted LLM reads the texts of a batch of items, at the uniform gate; its vector of each, mapped into the backbone's
output space, is scored against the frozen backbone's states of samples whose targets these items are. The other items
of the batch are the negatives. Items come once a pass, each as likely as the others, so that the correction for how
often an item is a negative (log Q, Yi et al. 2019) is the same for all and leaves the softmax as it is. A second loss
keeps the mapped texts near the backbone's own rows, from which ridge regression started.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count as counting
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.data.batches import batches, seen_items
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import gains
from recdistill.evaluation.ranking import rank_of_target
from recdistill.teachers.ilora.titles import Int64Array
from recdistill.teachers.protocol import Lesson
from recdistill.teachers.ranking.content import HALF, TEXT_ROWS
from recdistill.training.averaging import overwrite
from recdistill.training.fit import Metrics, Progress

if TYPE_CHECKING:
    from recdistill.teachers.ranking.teacher import RankingTeacher

#: Samples of an item whose states are scored at a time.
SAMPLES_AN_ITEM = 8
STATES_A_BATCH = 4096
#: What ``contrast_kept=validation`` goes by, and the same of the weights before the contrast.
AMONG_NEW, OF_START, CUT_OFF = "val/new_among_new_ndcg_at_20", "val/new_among_new_ndcg_at_20_of_start", 20


@dataclass(frozen=True, eq=False)
class ItemBatch:
    """Items, and training samples whose targets they are.

    Attributes:
        items: int64 [B], distinct.
        sample: int64 [S], indices into the training samples.
        label: int64 [S], the place of each sample's target in ``items``.
        tokens: LLM tokens that the items' texts have.
    """

    items: Tensor
    sample: Tensor
    label: Tensor
    tokens: int

    def __len__(self) -> int:
        return len(self.items)

    def part(self, index: int, count: int) -> "tuple[ItemBatch, float]":
        """A process's part of the samples, and its share of the loss; every process reads all items' texts.

        Where no sample is left for it, the first one stands in with a share of 0: each process then has one to compute.
        """
        mine = torch.arange(len(self.sample)).tensor_split(count)[index]
        chosen = mine if len(mine) else torch.tensor([0])
        part = ItemBatch(self.items, self.sample[chosen], self.label[chosen], self.tokens)
        return part, len(mine) / len(self.sample)


def contrast_lesson(teacher: "RankingTeacher", states: Tensor) -> Lesson[ItemBatch]:
    """The lesson; ``states`` [N, D] are the backbone's, of all training samples, see `states_of_samples`."""
    model, options, device = teacher.model, teacher.options, teacher.device
    content = model.content
    assert content is not None
    target = model.head.item_table
    weight = torch.as_tensor(teacher.data.item_count, device=device, dtype=torch.float32)
    weight = weight / (weight + HALF)
    scale = target[weight > 0].var(dim=0).mean().clamp(min=1e-12)

    def step(batch: ItemBatch) -> dict[str, Tensor]:
        items = batch.items.to(device)
        rows = content.mapped(model.text_states(content.texts, batch.items))
        logits = states[batch.sample].to(device) @ rows.T
        contrast = F.cross_entropy(logits, batch.label.to(device))
        own = weight[items]
        away = (own * (rows - target[items]).square().mean(dim=1)).sum() / (own.sum() * scale)
        return {"total": contrast + options.contrast_ridge * away, "contrast": contrast, "ridge": away}

    named = {name: tensor for name, tensor in model.trained().items() if name.startswith(("llm.", "content.text_map"))}
    return Lesson(
        module=model,
        parameters=named,
        groups=[{"params": [p for p in named.values() if p.requires_grad], "lr": options.contrast_learning_rate}],
        batches=lambda: item_batches(teacher),
        step=step,
        size=lambda batch: {"samples": len(batch), "tokens": batch.tokens},
        divide=ItemBatch.part,
        validate=validation_of(teacher) if options.contrast_kept == "validation" else None,
        metric=AMONG_NEW,
    )


def fit_from_start(
    lesson: Lesson[ItemBatch], fit: Callable[[Lesson[ItemBatch], int], Progress], token_budget: int
) -> Progress:
    """Fit the lesson; where it validates, the weights before it stay if none of its curve's points is better."""
    if lesson.validate is None:
        return fit(lesson, token_budget)
    validate = lesson.validate
    lesson.module.eval()
    before, start = validate()[lesson.metric], {n: t.detach().clone() for n, t in lesson.parameters.items()}
    # Beside each point of the curve, so that a run tells which was kept.
    progress = fit(replace(lesson, validate=lambda: validate() | {OF_START: before}), token_budget)
    if progress.best <= before:
        overwrite(lesson.parameters, start)
    return progress


def validation_of(teacher: "RankingTeacher") -> Callable[[], Metrics]:
    """Gives NDCG@20 of validation's new targets among its new items, by mapped texts and the backbone's states."""
    data, content, device = teacher.data, teacher.model.content, teacher.device
    assert content is not None
    sample, place = new_targets(data)
    samples, items = data.validation.subset(sample), torch.from_numpy(data.new_validation)
    states = states_of_samples(teacher, samples).to(device)
    excluded = None
    if teacher.config.exclude_seen:
        row, seen = seen_items(samples, torch.arange(len(sample)))
        known = torch.isin(seen, items)
        excluded = row[known].to(device), torch.searchsorted(items, seen[known]).to(device)

    @torch.no_grad()
    def validate() -> Metrics:
        texts = [teacher.model.text_states(content.texts, one) for one in items.split(TEXT_ROWS)]
        rank = rank_of_target(states @ content.mapped(torch.cat(texts)).T, torch.from_numpy(place), excluded)
        # Rounded otherwise, another process could keep other weights.
        return {AMONG_NEW: teacher.processes.told(float(gains("ndcg", rank, CUT_OFF).mean()))}

    return validate


def new_targets(data: SequenceData) -> tuple[Int64Array, Int64Array]:
    """Validation samples whose targets are new items, and the place of each target among validation's new items."""
    sample = np.flatnonzero(np.isin(data.validation.targets, data.new_validation))
    return sample, np.searchsorted(data.new_validation, data.validation.targets[sample])


def check_contrast_kept(contrast_kept: str, data: SequenceData) -> None:
    """Raise InputError where nothing can be chosen on validation."""
    if contrast_kept == "validation" and not len(new_targets(data)[0]):
        raise InputError(
            "contrast_kept=validation: no target of validation is a new item; give new_items above 0, or keep the last"
        )


def item_batches(teacher: "RankingTeacher") -> Iterator[ItemBatch]:
    """Batches of about ``tokens_per_batch`` tokens of items' texts, pass after pass over the trained items."""
    assert teacher.model.content is not None
    data, texts = teacher.data, teacher.model.content.texts
    trainable = data.trainable(teacher.config.exclude_seen)
    index = np.arange(len(data.train)) if trainable is None else trainable
    targets = data.train.targets[index]
    order = np.argsort(targets, kind="stable")
    items, starts, counts = np.unique(targets[order], return_index=True, return_counts=True)
    lengths = texts.lengths[items]
    for number in counting():
        random = np.random.default_rng((teacher.config.seed, number))
        shuffled = random.permutation(len(items))
        for group in np.split(shuffled, starts_of_batches(lengths[shuffled], teacher.config.tokens_per_batch)):
            drawn = random.integers(counts[group][:, None], size=(len(group), SAMPLES_AN_ITEM))
            sample = index[order[starts[group][:, None] + drawn]]
            yield ItemBatch(
                torch.from_numpy(items[group]),
                torch.from_numpy(sample.ravel()),
                torch.arange(len(group)).repeat_interleave(SAMPLES_AN_ITEM),
                int(len(group) * lengths[group].max()),
            )


def starts_of_batches(lengths: Int64Array, tokens_per_batch: int) -> Int64Array:
    """Where batches of texts begin, but the first: as many as ``tokens_per_batch`` has room for, two at least.

    Alone, a text has nothing to be told from.
    """
    starts, begin, tokens = [], 0, 0
    for place, length in enumerate(lengths.tolist()):
        if place - begin >= 2 and tokens + length > tokens_per_batch and place < len(lengths) - 1:
            starts.append(place)
            begin, tokens = place, 0
        tokens += length
    return np.array(starts, dtype=np.int64)


@torch.no_grad()
def states_of_samples(teacher: "RankingTeacher", samples: Samples | None = None) -> Tensor:
    """The frozen backbone's state of every sample, float32 [N, D], on the CPU; of the training samples by default."""
    samples, backbone = teacher.data.train if samples is None else samples, teacher.backbone
    found = torch.zeros(len(samples), backbone.state_size)
    for batch in batches(
        samples,
        length=teacher.window,
        batch_size=STATES_A_BATCH,
        stride=teacher.window,
        padding_id=teacher.data.padding_id,
        seed=0,
        epoch=0,
        shuffle=False,
    ):
        places = (part.to(teacher.device) for part in (batch.history, batch.length, batch.row, batch.column))
        found[batch.sample] = backbone(*places).float().cpu()
    return found
