"""What a recommender's lists are like beyond hits: measured over all lists together, without targets.

A metric of lists is registered among the metrics with ``of="lists"``, its cut-offs, and a sentence ``says``.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from recdistill.errors import InputError
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

    def copy(self) -> "RecommendedLists":
        """The same lists in memory of their own."""
        vectors = None if self.vectors is None else self.vectors.clone()
        return RecommendedLists(self.best.clone(), self.item_count.clone(), vectors)


def list_metrics(lists: RecommendedLists) -> dict[str, float]:
    """Every registered metric of lists, as ``coverage_at_10``; NaN where it needs vectors that are not there.

    Raises InputError where a metric raises, or gives no number.
    """
    found = {}
    for name in METRICS.names(of="lists"):
        metric, is_ours = METRICS.get(name), METRICS.is_ours(name)
        for k in METRICS.declaration(name).about["cut_offs"]:
            with METRICS.calling(name):
                # A copy: others read the same lists.
                value = metric(lists if is_ours else lists.copy(), k)
            found[f"{name}_at_{k}"] = _number(name, value)
    return found


def _number(name: str, value: object) -> float:
    """The number that a metric gave. Raises InputError where it is none, or infinite."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"metric {name!r}: gives a {type(value).__name__}; give one number for all lists") from None
    if math.isinf(found):
        raise InputError(f"metric {name!r}: gives {found}; give a finite number, or NaN where there is none")
    return found


def meanings() -> dict[str, str]:
    """What each metric of lists says, by its name with its cut-off."""
    return {
        f"{name}_at_{k}": str(METRICS.declaration(name).about["says"]).format(k=k)
        for name in METRICS.names(of="lists")
        for k in METRICS.declaration(name).about["cut_offs"]
    }
