"""What is measured of a recommender on a part of a data set: all targets, and trained and new ones apart."""

import math
from collections.abc import Collection, Mapping

import pandas as pd
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.rank_metrics import listed, metrics_from_ranks

#: The metric that says what untrained items cost the trained ones on validation, as a share of their NDCG@20.
WARM_COST = "val/warm_cost"
#: Cut-off of the chance level.
CHANCE_CUT_OFF = 20


def part_metrics(part: str, ranked: Ranked, data: SequenceData) -> dict[str, float]:
    """All metrics of a part, as ``test/ndcg_at_20``.

    Where the part has targets that are new items, also:

    - ``test/warm/<metric>``: of the targets that training has too, in the whole catalogue, new items included;
    - ``test/new/<metric>``: of the new targets, in the whole catalogue;
    - ``test/new_among_new/<metric>``: of the new targets, ranked among the part's new items alone;
    - ``test/new_among_new/chance_ndcg_at_20``: what a random order of them has on average (`chance_ndcg`);
    - ``test/new_samples``: how many samples have a new target.

    Args:
        part: ``val`` or ``test``.
        ranked: of its samples; ``ranked.among`` of its new items.
        data: the data set.

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
    found[f"{part}/new_among_new/chance_ndcg_at_{CHANCE_CUT_OFF}"] = chance_ndcg(len(new_items), CHANCE_CUT_OFF)
    found[f"{part}/new_samples"] = float((ranked.among > 0).sum())
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
