"""A table of ranks: each sample's user, target, rank, length of the history and popularity of the target."""

import numpy as np
import pandas as pd

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked


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
    targets = samples.targets
    table = pd.DataFrame(
        {
            "user": np.asarray(data.user_ids, dtype=object)[samples.user],
            "item": np.asarray(data.item_ids, dtype=object)[targets],
            "rank": ranked.ranks.numpy(),
            "history_length": samples.end - samples.start,
            "item_count": data.item_count[targets],
        }
    )
    if ranked.among is not None and bool((ranked.among > 0).any()):
        table["new"] = (ranked.among > 0).numpy()
        table["rank_among_new"] = ranked.among.numpy()
    return table
