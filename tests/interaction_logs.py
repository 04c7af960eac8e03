"""Logs of interactions written by hand, and samples read back as rows."""

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.data.samples import Samples


def log_of(rows: list[tuple[int, int, int]]) -> Interactions:
    """From rows (user, item, timestamp)."""
    user, item, timestamp = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    users, num_items = int(user.max()) + 1, int(item.max()) + 1
    return Interactions(
        user,
        item,
        timestamp,
        tuple(f"u{i}" for i in range(users)),
        tuple(f"i{i}" for i in range(num_items)),
        tuple(f"title {i}" for i in range(num_items)),
        "log.csv",
    )


def triples(samples: Samples) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of each sample."""
    return [
        (int(user), samples.items[start:end].tolist(), int(target))
        for user, start, end, target in zip(samples.user, samples.start, samples.end, samples.targets, strict=True)
    ]
