"""What a recommender's lists are like beyond hits: measured over all lists together, without targets.

A metric of lists is registered among the metrics with ``of="lists"``, its cut-offs, and a sentence ``says``.
"""

from dataclasses import dataclass

from torch import Tensor

from recdistill.registry import METRICS


@dataclass(frozen=True, eq=False)
class RecommendedLists:
    """The lists of one recommender.

    Attributes:
        best: item ids int64 [N, K], best first; V, which is no item, where a list is shorter.
        item_count: int64 [V], how often each item is a training target; 0 for a new one.
        vectors: float32 [V, D] of the items, of length 1 or 0; None where there are none.
    """

    best: Tensor
    item_count: Tensor
    vectors: Tensor | None = None

    @property
    def num_items(self) -> int:
        """V."""
        return len(self.item_count)

    def items(self, k: int) -> Tensor:
        """The items at the first ``k`` places of all lists, int64 [M], with repetitions."""
        first = self.best[:, :k]
        return first[first < self.num_items]


def list_metrics(lists: RecommendedLists) -> dict[str, float]:
    """Every registered metric of lists, as ``coverage_at_10``; NaN where it needs vectors that are not there."""
    found = {}
    for name in METRICS.names(of="lists"):
        for k in METRICS.declaration(name).about["cut_offs"]:
            found[f"{name}_at_{k}"] = float(METRICS.get(name)(lists, k))
    return found


def meanings() -> dict[str, str]:
    """What each metric of lists says, by its name with its cut-off."""
    return {
        f"{name}_at_{k}": str(METRICS.declaration(name).about["says"]).format(k=k)
        for name in METRICS.names(of="lists")
        for k in METRICS.declaration(name).about["cut_offs"]
    }
