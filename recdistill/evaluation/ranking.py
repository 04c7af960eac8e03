"""The rank of the true next item among all items."""

import torch
from torch import Tensor

from recdistill.errors import InputError


def rank_of_target(scores: Tensor, target: Tensor, excluded: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Rank of each row's target, 1 the best: 1 + the other items, not excluded, that score at least as high.

    Ties count against the model, so that a constant scorer ranks last and gains nothing. A target that is excluded
    itself is never recommended: its rank is V + 1, a miss at every cut-off up to V. Ranks do not tell V: at a cut-off
    above it, which every item reaches, a miss counts as a hit.

    Args:
        scores: [B, V].
        target: int64 [B].
        excluded: coordinates int64 [M] and int64 [M] of (row, item) pairs to leave out; repeats are fine.

    Returns int64 [B], on the device of ``scores``. Raises InputError for a score that is NaN.
    """
    if scores.numel() and bool(scores.amax().isnan()):
        raise InputError("the model's scores hold NaN: its training diverged; lower the learning rate")
    target = target.to(scores.device)
    # Kept and summed as float32: twice as fast as bool on a CPU, and counts below 2^24 are exact.
    beats = torch.empty_like(scores, dtype=torch.float32)
    torch.ge(scores, scores.gather(1, target[:, None]), out=beats)
    if excluded is None:
        beats.scatter_(1, target[:, None], 0)
        return 1 + beats.sum(dim=1).long()
    rows, items = (part.to(scores.device) for part in excluded)
    beats[rows, items] = 0
    beats.scatter_(1, target[:, None], 0)
    ranks = 1 + beats.sum(dim=1).long()
    ranks[rows[items == target[rows]]] = scores.shape[1] + 1
    return ranks


def rank_among(scores: Tensor, target: Tensor, among: Tensor, excluded: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Rank of each row's target among some items alone, 1 the best; 0 for a target that is none of them.

    Args:
        scores: [B, V].
        target: int64 [B].
        among: int64 [n], the items, each once.
        excluded: as in `rank_of_target`; a target that is excluded itself has rank V + 1 here too.

    Returns int64 [B], on the device of ``scores``. Raises InputError for a score of these items that is NaN.
    """
    device, num_items = scores.device, scores.shape[1]
    target, among = target.to(device), among.to(device)
    place = torch.full((num_items,), -1, device=device).index_put_((among,), torch.arange(len(among), device=device))
    ranks = torch.zeros_like(target)
    ranked = (place[target] >= 0).nonzero().squeeze(1)
    if not len(ranked):
        return ranks
    pairs = None
    if excluded is not None:
        rows, items = (part.to(device) for part in excluded)
        row_of = torch.full((len(target),), -1, device=device)
        row_of = row_of.index_put_((ranked,), torch.arange(len(ranked), device=device))
        kept = (row_of[rows] >= 0) & (place[items] >= 0)
        pairs = (row_of[rows[kept]], place[items[kept]])
    found = rank_of_target(scores[ranked[:, None], among], place[target[ranked]], pairs)
    # A miss stays one at every cut-off up to V, however few of the items are ranked.
    return ranks.index_put_((ranked,), found.masked_fill(found > len(among), num_items + 1))


def best_items(scores: Tensor, k: int, excluded: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The ``k`` best items of each row, best first: those that `rank_of_target` ranks, ties aside.

    Args:
        scores: [B, V].
        k: how many; V, which is no item, fills a row up where fewer are left.
        excluded: as in `rank_of_target`.

    Returns int64 [B, k], on the device of ``scores``.
    """
    num_items = scores.shape[1]
    if excluded is not None:
        rows, items = (part.to(scores.device) for part in excluded)
        scores = scores.index_put((rows, items), scores.new_tensor(-torch.inf))
    values, found = scores.topk(min(k, num_items), dim=1)
    found = found.masked_fill(values == -torch.inf, num_items)
    return torch.nn.functional.pad(found, (0, k - found.shape[1]), value=num_items)
