"""The order of rows by whole numbers, ties in the order in which they stand."""

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
WholeNumbers = NDArray[np.int32] | NDArray[np.int64]
BITS = 63  # of an int64 that is not negative


def stable_order(*keys: WholeNumbers) -> Int64Array:
    """Positions of N rows by the first key, then the second, and so on, int64 [N]; as `numpy.lexsort`, and faster.

    Where a key's range and N fit into 63 bits, key and position are sorted as one number: plain sorting of numbers is
    many times as fast as sorting positions by them.

    >>> stable_order(np.array([2, 1, 2, 1]), np.array([5, 9, 4, 9])).tolist()
    [1, 3, 2, 0]
    """
    order: Int64Array | None = None
    for key in reversed(keys):
        values = key if order is None else key[order]
        found = order_of(values)
        order = found if order is None else order[found]
    if order is None:
        raise ValueError("no key")
    return order


def order_of(values: WholeNumbers) -> Int64Array:
    """Positions of the values in ascending order, equal ones in the order in which they stand."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    low, width = int(values.min()), (len(values) - 1).bit_length()
    if (int(values.max()) - low).bit_length() + width > BITS:
        return np.argsort(values, kind="stable")
    packed = values.astype(np.int64)
    packed -= low
    packed <<= width
    packed |= np.arange(len(values), dtype=np.int64)
    packed.sort()
    packed &= (1 << width) - 1
    return packed
