"""What is measured of a recommender on a part of a data set: all targets, and trained and new ones apart."""

import math
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.rank_metrics import listed, metrics_from_ranks

#: The metric that says what untrained items cost the trained ones on validation, as a share of their NDCG@20.
WARM_COST = "val/warm_cost"
#: Cut-off of the chance level.
CHANCE_CUT_OFF = 20
#: Names of the chance level, and of how many new items a target is ranked among, behind the part's.
CHANCE = f"new_among_new/chance_ndcg_at_{CHANCE_CUT_OFF}"
RANKED_AMONG = "new_among_new/items"
#: Histories read at a time: the memory of one chunk is theirs.
HISTORIES = 512


def part_metrics(part: str, ranked: Ranked, data: SequenceData, *, exclude_seen: bool) -> dict[str, float]:
    """All metrics of a part, as ``test/ndcg_at_20``.

    Where the part has targets that are new items, also:

    - ``test/warm/<metric>``: of the targets that training has too, in the whole catalogue, new items included;
    - ``test/new/<metric>``: of the new targets, in the whole catalogue;
    - ``test/new_among_new/<metric>``: of the new targets, ranked among the part's new items alone;
    - ``test/new_among_new/chance_ndcg_at_20``: what a random order of them has on average (`chance_ndcg`), mean over
      the new targets, each among the items that its history leaves; 0 for a target that its history holds;
    - ``test/new_among_new/items``: how many new items a history leaves, mean over the new targets. Only where some
      history holds new items, which are left out of its ranking: so it also marks the runs whose chance counts that,
      which it did not before;
    - ``test/new_samples``: how many samples have a new target.

    Args:
        part: ``val`` or ``test``.
        ranked: of its samples; ``ranked.among`` of its new items.
        data: the data set.
        exclude_seen: whether items of the history were left out of the ranking.

    Raises:
        KeyError: there is no such part.
    """
    samples, new_items = {
        "val": (data.validation, data.new_validation),
        "test": (data.test, data.new_test),
    }[part]
    is_warm = torch.from_numpy(data.trained[samples.targets])
    found = metrics_of(target_groups(part, ranked.ranks, is_warm, ranked.among))
    if ranked.among is None or not bool((ranked.among > 0).any()):
        return found
    is_new = np.flatnonzero((ranked.among > 0).numpy())
    left = items_left(samples, is_new, new_items, data.num_items) if exclude_seen else None
    if left is None or bool((left == len(new_items)).all()):
        found[f"{part}/{CHANCE}"] = chance_ndcg(len(new_items), CHANCE_CUT_OFF)
    else:
        # A target that its history holds is never recommended: a miss, whatever the order.
        found[f"{part}/{CHANCE}"] = mean_chance(left[~samples.target_seen[is_new]], len(left), CHANCE_CUT_OFF)
        found[f"{part}/{RANKED_AMONG}"] = float(left.mean())
    found[f"{part}/new_samples"] = float(len(is_new))
    return found


def table_metrics(part: str, table: pd.DataFrame, names: Collection[str]) -> dict[str, float]:
    """The metrics ``names`` (each with all its cut-offs) of a part, from its table of ranks, see `rank_table`."""
    ranks, is_warm = (
        torch.from_numpy(table["rank"].to_numpy().copy()),
        torch.from_numpy(table["item_count"].to_numpy() > 0),
    )
    among = torch.from_numpy(table["rank_among_new"].to_numpy().copy()) if "rank_among_new" in table else None
    wanted = {name if k is None else f"{name}_at_{k}" for name, k in listed() if name in names}
    found = metrics_of(target_groups(part, ranks, is_warm, among))
    return {name: value for name, value in found.items() if name.rpartition("/")[2] in wanted}


def target_groups(part: str, ranks: Tensor, is_warm: Tensor, among: Tensor | None) -> dict[str, Tensor]:
    """Ranks of all samples of a part and, where some targets are new, of each group of targets that has any.

    Args:
        part: ``val`` or ``test``.
        ranks: int64 [N], in the whole catalogue.
        is_warm: bool [N], whether training has the target.
        among: int64 [N], ranks among the new items, 0 where the target is none; None where no item is new.

    Returns ranks by what begins the names of their metrics.
    """
    found = {part: ranks}
    if among is None or not bool((among > 0).any()):
        return found
    is_new = among > 0
    groups = {"warm": ranks[is_warm], "new": ranks[is_new], "new_among_new": among[is_new]}
    return found | {f"{part}/{group}": ones for group, ones in groups.items() if len(ones)}


def metrics_of(groups: Mapping[str, Tensor]) -> dict[str, float]:
    """All metrics of each group of ranks, by ``<group>/<metric>``."""
    return {
        f"{group}/{name}": value for group, ranks in groups.items() for name, value in metrics_from_ranks(ranks).items()
    }


def chance_ndcg(num_items: int, k: int) -> float:
    """NDCG@k of one target in a random order of n items, on average: the sum of 1 / (n log2(r + 1)) over ranks r <= k.

    >>> round(chance_ndcg(202, 20), 4), chance_ndcg(1, 20)
    (0.0349, 1.0)
    """
    return sum(1 / math.log2(rank + 1) for rank in range(1, min(k, num_items) + 1)) / num_items


def mean_chance(left: Int64Array, targets: int, k: int) -> float:
    """Mean of `chance_ndcg` over targets, each among so many items as it is ranked with.

    Args:
        left: int64 [M], at least 1 each, of the targets that can be recommended.
        targets: N, at least M; the others count 0.
        k: cut-off.

    >>> round(mean_chance(np.array([1, 2]), 4, 20), 4)
    0.4539
    """
    counts, times = np.unique(left, return_counts=True)
    return sum(chance_ndcg(int(n), k) * int(often) for n, often in zip(counts, times, strict=True)) / targets


def items_left(samples: Samples, index: Int64Array, items: Int64Array, num_items: int) -> Int64Array:
    """How many of some items the whole history of each sample leaves, int64 [n].

    Args:
        samples: N of them.
        index: int64 [n], which of them.
        items: int64 [m], each once.
        num_items: V.
    """
    asked = np.zeros(num_items, dtype=bool)
    asked[items] = True
    left = np.full(len(index), len(items), dtype=np.int64)
    for start in range(0, len(index), HISTORIES):
        rows, seen = samples.seen(index[start : start + HISTORIES])
        kept = asked[seen]
        # An item that a history holds twice is one item less.
        pairs = np.unique(rows[kept] * num_items + seen[kept])
        part = left[start : start + HISTORIES]
        part -= np.bincount(pairs // num_items, minlength=len(part))
    return left
