"""What is measured of a recommender on a part of a data set: all targets, and trained and new ones apart."""

import math

import torch

from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.rank_metrics import metrics_from_ranks

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
    found = {f"{part}/{name}": value for name, value in metrics_from_ranks(ranked.ranks).items()}
    if ranked.among is None or not bool((ranked.among > 0).any()):
        return found
    is_new = ranked.among > 0
    is_warm = torch.from_numpy(data.trained[samples.targets])
    groups = {
        "warm": ranked.ranks[is_warm],
        "new": ranked.ranks[is_new],
        "new_among_new": ranked.among[is_new],
    }
    for group, ranks in groups.items():
        if len(ranks):
            found |= {f"{part}/{group}/{name}": value for name, value in metrics_from_ranks(ranks).items()}
    found[f"{part}/new_among_new/chance_ndcg_at_{CHANCE_CUT_OFF}"] = chance_ndcg(len(new_items), CHANCE_CUT_OFF)
    found[f"{part}/new_samples"] = float(is_new.sum())
    return found


def chance_ndcg(num_items: int, k: int) -> float:
    """NDCG@k of one target in a random order of n items, on average: the sum of 1 / (n log2(r + 1)) over ranks r <= k.

    >>> round(chance_ndcg(202, 20), 4), chance_ndcg(1, 20)
    (0.0349, 1.0)
    """
    return sum(1 / math.log2(rank + 1) for rank in range(1, min(k, num_items) + 1)) / num_items
