"""Hit ratio by length of the history and by popularity of the target."""

import numpy as np
import pandas as pd

from recdistill.evaluation.intervals import share_interval
from recdistill.evaluation.slices import Slices, history_slices, popularity_slices


def slice_table(ranks: pd.DataFrame, k: int = 10) -> pd.DataFrame:
    """Hit ratio at ``k`` over all samples, and over those of each of `evaluation.slices`.

    Args:
        ranks: N samples as `rank_table` has them, N >= 1; ``user``, ``rank``, ``history_length`` and ``item_count``
            are read.
        k: cut-off.

    Returns a row a group: ``kind`` ('all', 'history' or 'popularity'), ``subgroup``, ``samples``, ``hr_at_<k>``, and
    its 95 % interval ``low`` to ``high``, of which `share_interval` says how a user's samples count.
    """
    hit = ranks["rank"].to_numpy() <= k
    user = pd.factorize(ranks["user"])[0]
    everything = Slices("all", ("all",), np.zeros(len(ranks), dtype=np.int64))
    rows = []
    for slices in (everything, history_slices(ranks["history_length"]), popularity_slices(ranks["item_count"])):
        for group, name in enumerate(slices.names):
            inside = slices.member == group
            share, low, high = share_interval(hit[inside], user[inside])
            rows.append((slices.kind, name, int(inside.sum()), share, low, high))
    return pd.DataFrame(rows, columns=["kind", "subgroup", "samples", f"hr_at_{k}", "low", "high"])
