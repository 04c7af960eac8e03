"""A table of ranks: each sample's user, target, rank, length of the history and popularity of the target."""

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked

#: A sample is a user's; a target that the user has again is told apart by its turn.
SAMPLE = ("user", "item")


def rank_table(ranked: Ranked, samples: Samples, data: SequenceData) -> pd.DataFrame:
    """Make a table with one row a sample.

    Args:
        ranked: N ranks, 1 the best.
        samples: N of them.
        data: the data set they are of.

    Returns columns ``user`` and ``item`` (the target), ids as the source writes them; ``rank``;
    ``history_length`` (the whole history); ``item_count``, how often the target is a training target. Where there are
    targets that are new items, also ``new``, whether it is one; ``rank_among_new``, its rank among them, 0 for others.
    """
    table = sample_table(samples, data).assign(
        rank=ranked.ranks.numpy(),
        history_length=samples.end - samples.start,
        item_count=data.item_count[samples.targets],
    )
    if ranked.among is not None and bool((ranked.among > 0).any()):
        table["new"] = (ranked.among > 0).numpy()
        table["rank_among_new"] = ranked.among.numpy()
    return table


def sample_table(samples: Samples, data: SequenceData) -> pd.DataFrame:
    """The columns `SAMPLE` of samples of the data, ids as the source writes them: the user and the target."""
    user, item = (np.asarray(ids, dtype=object) for ids in (data.user_ids, data.item_ids))
    return pd.DataFrame({"user": user[samples.user], "item": item[samples.targets]})


def common_samples(tables: Sequence[pd.DataFrame]) -> list[Int64Array]:
    """The rows of each table whose samples all of them have, in the order of the first.

    Args:
        tables: at least one, each with the columns `SAMPLE`, a row a sample, a user's in order of time. A table has all
            samples of a user, or none.

    Returns the places of these rows in each table, int64 [n].
    """
    first, *others = tables
    if all(len(one) == len(first) and all(np.array_equal(one[name], first[name]) for name in SAMPLE) for one in others):
        return [np.arange(len(first))] * len(tables)
    numbered = [
        table[list(SAMPLE)].assign(
            turn=table.groupby(list(SAMPLE)).cumcount().to_numpy(), **{f"place {number}": np.arange(len(table))}
        )
        for number, table in enumerate(tables)
    ]
    shared = functools.reduce(lambda one, other: one.merge(other, on=[*SAMPLE, "turn"]), numbered)
    return [shared[f"place {number}"].to_numpy() for number in range(len(tables))]
