"""A table of recommendations: the items that a model ranks first for each sample, and the item that came next."""

import numpy as np
import pandas as pd
from torch import Tensor

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData


def recommendation_table(best: Tensor, samples: Samples, data: SequenceData) -> pd.DataFrame:
    """Make a table with one row a sample, in the order of `rank_table`.

    Args:
        best: int64 [N, k], items best first; V, which is no item, where fewer are left.
        samples: N of them.
        data: the data set they are of.

    Returns columns ``user``, ``item`` (the target) and ``items`` (a list, best first), ids as the source writes them.
    """
    item_ids = np.asarray(data.item_ids, dtype=object)
    return pd.DataFrame(
        {
            "user": np.asarray(data.user_ids, dtype=object)[samples.user],
            "item": item_ids[samples.targets],
            "items": [item_ids[row[row < len(item_ids)]].tolist() for row in best.numpy()],
        }
    )
