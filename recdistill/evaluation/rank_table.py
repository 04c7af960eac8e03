"""A table of ranks: each sample's user, target, rank, length of the history and popularity of the target."""

import numpy as np
import pandas as pd
from torch import Tensor

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData


def rank_table(ranks: Tensor, samples: Samples, data: SequenceData) -> pd.DataFrame:
    """Make a table with one row a sample.

    Args:
        ranks: int64 [N], 1 the best.
        samples: N of them.
        data: the data set they are of.

    Returns columns ``user`` and ``item`` (the target), ids as the source writes them; ``rank``;
    ``history_length`` (the whole history); ``item_count``, how often the target is a training target.
    """
    targets = samples.targets
    return pd.DataFrame(
        {
            "user": np.asarray(data.user_ids, dtype=object)[samples.user],
            "item": np.asarray(data.item_ids, dtype=object)[targets],
            "rank": ranks.numpy(),
            "history_length": samples.end - samples.start,
            "item_count": data.item_count[targets],
        }
    )
