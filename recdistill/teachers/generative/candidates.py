"""The titles that a candidate prompt offers: the target among random others (iLoRA, NeurIPS 2024)."""

import numpy as np
from numpy.typing import ArrayLike

from recdistill.errors import InputError
from recdistill.teachers.ilora.titles import Int64Array


def draw_candidates(
    seen: ArrayLike, target: int, num_items: int, count: int, generator: np.random.Generator
) -> Int64Array:
    """The target and ``count - 1`` other items, uniform over those not seen, in random order, int64 [count].

    Args:
        seen: items of the whole history, in any order; none of them is drawn.
        target: the next item, which may be a seen one.
        num_items: V.
        count: candidates in all.
        generator: of the draw and the order.

    Raises:
        InputError: the catalogue has too few items that were not seen.
    """
    out = np.unique(np.append(np.asarray(seen, dtype=np.int64), target))
    if num_items - len(out) < count - 1:
        raise InputError(
            f"candidates={count}: a history leaves only {num_items - len(out)} of {num_items} items besides the next; "
            "give fewer candidates"
        )
    # Places among the items that are left; those before a place are found by the items taken out below it.
    places = generator.choice(num_items - len(out), count - 1, replace=False)
    others = places + np.searchsorted(out - np.arange(len(out)), places, side="right")
    return generator.permutation(np.append(others, target))
