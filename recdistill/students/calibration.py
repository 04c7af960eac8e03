"""How new items are set among the others, chosen on validation: what warm targets lose is bounded, new ones gain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import chunks_of_like_length, places_at_once
from recdistill.evaluation.rank_metrics import gains
from recdistill.students.mapped import Interleaving, MappedStudent
from recdistill.students.measure import ranked
from recdistill.students.recommender import Recommender

CUT_OFF = 20
#: So many of the best new scores tell what stands before a target, and whether it is within the cut-off.
KEPT = CUT_OFF + 1
SCALES = (1.0, 1.25, 1.5)
#: Shares of the warm targets' NDCG that the points of a curve cost.
COSTS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
#: Samples that a choice looks at, at most; drawn where there are more.
MOST_SAMPLES = 20_000
BATCH = 512
#: Offsets are looked for between minus and plus this, by halving; further out where the scores ask for it.
WIDEST, HALVINGS = 40.0, 20


@dataclass(frozen=True, eq=False)
class CalibrationScores:
    """What rankings of N samples are, whatever the interleaving, for targets that are known items or new ones.

    A scale above 0 keeps the order of the new items, so that the best of them tell all ranks up to the cut-off: memory
    does not grow with the number of new items.

    Attributes:
        own: [N], the target's score where it is a known item.
        before: int64 [N], its rank among the known items; `MISS` where its history has it already.
        top: [N, 20], the best known items' scores; -inf where fewer are left.
        best_new: [N, 21] at most, the best new items' scores, the target's among them; -inf where fewer are left.
        own_new: [N], the target's score where it is a new item; -inf where its history has it already.
        among: int64 [N], where the target counts, its rank among the part's new items; `MISS` where its history has it.
        largest: [N], the greatest absolute value of the new items' scores that are finite; 0 where there are none.
        warm: bool [N], whether the target is a known item.
        counts: bool [N], whether the target is a new item of the part.
    """

    own: Tensor
    before: Tensor
    top: Tensor
    best_new: Tensor
    own_new: Tensor
    among: Tensor
    largest: Tensor
    warm: Tensor
    counts: Tensor

    @cached_property
    def size(self) -> float:
        """The greatest absolute value of all scores that are finite; 0 where there are none."""
        finite = [one[one.isfinite()].abs() for one in (self.own, self.top, self.largest)]
        return max((float(one.max()) for one in finite if len(one)), default=0.0)

    def reach(self, scale: float) -> float:
        """An offset at which, with ``scale``, new items stand above all known ones, and by its negative below all."""
        # More than the sum of both sizes, so that rounding of large scores makes no tie.
        return self.size * (1 + abs(scale)) * 1.001 + 1


#: A rank below every cut-off.
MISS = 1 << 40


@dataclass(frozen=True)
class Outcome:
    """What an interleaving does to a part's samples.

    Attributes:
        interleaving: the setting.
        warm: NDCG@20 of known targets; 0 where there are none.
        new: NDCG@20 of new targets in the whole catalogue; 0 where there are none.
        all: NDCG@20 of both.
        warm_cost: share of the warm targets' NDCG@20 that new items cost, against leaving them out of the catalogue.
        gain: change of ``all`` against leaving new items out, as a share.
    """

    interleaving: Interleaving
    warm: float
    new: float
    all: float
    warm_cost: float
    gain: float


@torch.no_grad()
def calibration_scores(
    model: MappedStudent, samples: Samples, new_targets: Int64Array, exclude_seen: bool, device: torch.device
) -> CalibrationScores:
    """Score samples once for all interleavings.

    Args:
        model: on ``device``; its new items compete, all of them.
        samples: N of them.
        new_targets: the new items that count as targets, as ``data.new_validation``; each new to the model.
        exclude_seen: leave a sample's history out of its ranking.
        device: of the model.

    Raises:
        ValueError: an item of ``new_targets`` is not new to the model.
    """
    chunks = list(chunks_of_like_length(samples, model.max_length, BATCH, places_at_once(device)))
    kept: dict[str, Tensor] = {}
    for index, width in chunks:
        part = vars(_scores_of(model, samples, index, width, new_targets, exclude_seen, device))
        # Small pieces that outlive their batch would lie between its large ones, whose memory could not be used again.
        kept = kept or {name: one.new_empty(len(samples), *one.shape[1:]) for name, one in part.items()}
        for name, one in part.items():
            kept[name][torch.as_tensor(index)] = one
    return CalibrationScores(**kept)


def _scores_of(
    model: MappedStudent,
    samples: Samples,
    index: Int64Array,
    width: int,
    new_targets: Int64Array,
    exclude_seen: bool,
    device: torch.device,
) -> CalibrationScores:
    history, length = (torch.as_tensor(one) for one in samples.windows_of(index, width, model.num_items))
    known, new = (one.float().cpu() for one in model.scores_apart(history.to(device), length.to(device)))
    target = torch.as_tensor(samples.targets[index])
    new_items, is_known = model.new_items.cpu(), model.is_known.cpu()
    column = torch.full((model.num_items,), -1).index_put_((new_items,), torch.arange(len(new_items)))
    columns = torch.as_tensor(model.columns_of(new_targets))
    rows, items = (torch.as_tensor(one) for one in samples.seen(index))
    own = known.gather(1, target.clamp(max=model.base - 1).unsqueeze(1)).squeeze(1)
    # The matrices are of this batch alone, and large: changed in place.
    known.masked_fill_(~is_known, -torch.inf)
    missed = torch.zeros(len(target), dtype=torch.bool)
    if exclude_seen:
        old = items < model.base
        known.index_put_((rows[old], items[old]), known.new_tensor(-torch.inf))
        fresh = column[items] >= 0
        new.index_put_((rows[fresh], column[items[fresh]]), new.new_tensor(-torch.inf))
        missed[rows[items == target[rows]]] = True
    counts = torch.as_tensor(np.isin(target.numpy(), new_targets))
    # Ties count against the target, which is among those that score as high.
    before = (known >= own.unsqueeze(1)).sum(dim=1).clamp(min=1)
    before[missed] = MISS
    top = known.topk(min(CUT_OFF, known.shape[1]), dim=1).values
    place = column[target]
    own_new = new.gather(1, place.clamp(min=0).unsqueeze(1)).squeeze(1) if new.shape[1] else torch.zeros_like(own)
    among = (new[:, columns] >= own_new.unsqueeze(1)).sum(dim=1)
    among[own_new.isneginf()] = MISS
    best = new.topk(min(KEPT, new.shape[1]), dim=1).values
    largest = new.abs().masked_fill_(new.isinf(), 0).amax(dim=1) if new.shape[1] else torch.zeros_like(own)
    return CalibrationScores(own, before, top, best, own_new, among, largest, place < 0, counts)


def outcome(scores: CalibrationScores, interleaving: Interleaving) -> Outcome:
    """What an interleaving does; ranks as `evaluation.ranking` has them, ties against the target.

    Ranks are exact to the cut-off: what stands before a target there is among the best of the known and of the new.
    Raises ValueError for a scale that is not above 0.
    """
    if interleaving.scale <= 0:
        raise ValueError(f"an interleaving of scale {interleaving.scale} turns the order of the new items around")
    warm, is_new = scores.warm, ~scores.warm
    before = scores.before[warm]
    with_new = before + (interleaving(scores.best_new[warm]) >= scores.own[warm].unsqueeze(1)).sum(dim=1)
    own = interleaving(scores.own_new[is_new]).unsqueeze(1)
    rank = (interleaving(scores.best_new[is_new]) >= own).sum(dim=1) + (scores.top[is_new] >= own).sum(dim=1)
    rank[own.isneginf().any(dim=1)] = MISS
    gain_of_new = gains("ndcg", rank, CUT_OFF)
    left_out, warm_sum, new_sum = (
        float(one.sum()) for one in (gains("ndcg", before, CUT_OFF), gains("ndcg", with_new, CUT_OFF), gain_of_new)
    )
    return Outcome(
        interleaving,
        warm=warm_sum / max(1, len(before)),
        new=float(gain_of_new[scores.counts[is_new]].sum()) / max(1, int(scores.counts.sum())),
        all=(warm_sum + new_sum) / max(1, len(scores.warm)),
        warm_cost=1 - warm_sum / left_out if left_out else 0.0,
        gain=(warm_sum + new_sum) / left_out - 1 if left_out else 0.0,
    )


def at_cost(scores: CalibrationScores, scale: float, cost: float) -> Outcome:
    """The interleaving of a scale with the greatest offset whose warm cost is at most ``cost``, 0 or more."""

    def within(offset: float) -> bool:
        return outcome(scores, Interleaving(scale, offset)).warm_cost <= cost

    low, high, reach, halvings = -WIDEST, WIDEST, scores.reach(scale), HALVINGS
    if reach > WIDEST:
        # At minus the reach nothing is lost, and above the reach nothing changes.
        if not within(low):
            low, high = -reach, low
        elif within(high):
            low, high = high, reach
        halvings += max(0, math.ceil(math.log2((high - low) / (2 * WIDEST))))
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return outcome(scores, Interleaving(scale, low))


def choose_interleaving(scores: CalibrationScores, cost: float) -> Outcome:
    """Of the settings that cost warm targets at most ``cost``, that with the greatest NDCG@20 of new targets."""
    return max((at_cost(scores, scale, cost) for scale in SCALES), key=lambda one: (one.new, -one.warm_cost))


def curve(scores: CalibrationScores, scale: float, costs: Sequence[float] = COSTS) -> list[Outcome]:
    """Warm against new targets: the points of a scale that cost warm targets at most so much."""
    return [at_cost(scores, scale, cost) for cost in costs]


def some_samples(samples: Samples, seed: int) -> Samples:
    """The samples, or `MOST_SAMPLES` of them, drawn."""
    return samples.at_most(MOST_SAMPLES, seed)


def warm_cost(
    model: Recommender, data: SequenceData, exclude_seen: bool, device: torch.device, seed: int
) -> float | None:
    """Share of the trained items' NDCG@20 on validation that untrained items cost, against leaving these out.

    A training says nothing of how the score of an item that it never had for a target compares with the others'. Of
    more than `MOST_SAMPLES` samples so many are ranked. None where all items are trained, or no target is.
    """
    warm = data.validation.subset(np.flatnonzero(data.trained[data.validation.targets]))
    if bool(data.trained.all()) or not len(warm):
        return None
    samples, trained = some_samples(warm, seed), np.flatnonzero(data.trained)
    found = ranked(model, samples, exclude_seen, device, keep=0, among=trained)
    assert found.among is not None
    left_out, with_them = (float(gains("ndcg", ranks, CUT_OFF).sum()) for ranks in (found.among, found.ranks))
    return 1 - with_them / left_out if left_out else 0.0


def stand_ins(data: SequenceData, is_known: NDArray[np.bool_], share: float, seed: int) -> Int64Array:
    """Known items to be treated as new where validation has no new targets, ascending; none where it has no targets.

    Args:
        data: the data set.
        is_known: bool [V], the items that the student has learnt.
        share: of the known items that are validation targets.
        seed: of the draw.
    """
    targets = np.unique(data.validation.targets)
    known = targets[is_known[targets]]
    if len(known) < 2:
        return known[:0]
    return np.sort(np.random.default_rng(seed).permutation(known)[: max(1, round(share * len(known)))])


def among_new(scores: CalibrationScores) -> float:
    """NDCG@20 of new targets ranked among the part's new items alone; 0 where there is no such target."""
    rank = scores.among[scores.counts]
    return float(gains("ndcg", rank, CUT_OFF).mean()) if len(rank) else 0.0
