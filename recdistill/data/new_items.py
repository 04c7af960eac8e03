"""New items: drawn ones that leave training and all histories, or those that no training sample has for a target."""

import numpy as np
from numpy.typing import NDArray

from recdistill.data.samples import Int64Array, Samples
from recdistill.data.splits.order import Parts
from recdistill.errors import InputError

#: Items with fewer interactions are not drawn: a draw is of few targets even so.
FEWEST_INTERACTIONS = 5


def items_without_target(train: Samples, num_items: int) -> Int64Array:
    """The items that are no training target, ascending, int64."""
    return np.flatnonzero(np.bincount(train.targets, minlength=num_items) == 0)


def draw_new_items(interactions_of_item: Int64Array, share: float, seed: int) -> tuple[Int64Array, Int64Array]:
    """Draw disjoint new items for validation and for test among those with five interactions or more.

    Args:
        interactions_of_item: how many interactions each item has, int64 [V].
        share: of those items that are drawn for test; half as many are drawn for validation, at least one of each.
        seed: of the draw.

    Returns the ids for validation and for test, ascending, int64.

    Raises:
        InputError: fewer than three items have as many interactions.
    """
    eligible = np.flatnonzero(interactions_of_item >= FEWEST_INTERACTIONS)
    if len(eligible) < 3:
        raise InputError(
            f"new_items={share}: only {len(eligible)} items have {FEWEST_INTERACTIONS} interactions or more; give more "
            "interactions, or new_items=0"
        )
    for_test = max(1, round(share * len(eligible)))
    for_validation = max(1, for_test // 2)
    drawn = np.random.default_rng(seed).permutation(eligible)[: for_test + for_validation]
    return np.sort(drawn[for_test:]), np.sort(drawn[:for_test])


def hold_out_items(parts: Parts, new_validation: Int64Array, new_test: Int64Array, num_items: int) -> Parts:
    """Take drawn items out of a split: out of training, and out of every history.

    They stay targets of their own part: a validation sample keeps a target of ``new_validation``, a test sample one of
    ``new_test``. Samples with another drawn target, and those whose history is empty then, are left out.

    Args:
        parts: training, validation and test samples.
        new_validation: drawn for validation, int64.
        new_test: drawn for test, int64, disjoint from them.
        num_items: V.

    Returns training samples whose targets stand in their flat items, and the other two with targets apart; parts that
    shared their flat items share them again.
    """
    is_new = np.zeros(num_items, dtype=bool)
    is_new[new_validation] = is_new[new_test] = True
    kept_items: dict[int, tuple[Int64Array, Int64Array]] = {}
    found = []
    for samples, own in zip(parts, (None, new_validation, new_test), strict=True):
        if id(samples.items) not in kept_items:
            kept_items[id(samples.items)] = without_items(samples.items, is_new)
        items, before = kept_items[id(samples.items)]
        start, end, targets = before[samples.start], before[samples.end], samples.targets
        allowed = ~is_new
        if own is not None:
            allowed[own] = True
        kept = np.flatnonzero(allowed[targets] & (start < end))
        target = None if own is None else targets[kept]
        found.append(Samples(items, start[kept], end[kept], samples.user[kept], target))
    return found[0], found[1], found[2]


def without_items(items: Int64Array, leaving: NDArray[np.bool_]) -> tuple[Int64Array, Int64Array]:
    """The flat items [T] less those that are ``leaving`` [V], and how many stay before each of 0 .. T, int64 [T + 1].

    >>> without_items(np.array([0, 2, 1, 2]), np.array([False, False, True]))
    (array([0, 1]), array([0, 1, 1, 2, 2]))
    """
    stays = ~leaving[items]
    return items[stays], np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(stays)])
