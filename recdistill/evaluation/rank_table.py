"""Ranks with what is needed to compare them: whose they are, and how hard each was."""

from typing import Any, Protocol

import numpy as np
import pandas as pd
from torch import Tensor


class Catalogued(Protocol):
    """What is needed of ``data.SequenceData``."""

    @property
    def user_ids(self) -> Any: ...

    @property
    def item_ids(self) -> Any: ...

    @property
    def item_count(self) -> Any: ...


def rank_table(ranks: Tensor, samples: Any, data: Catalogued) -> pd.DataFrame:
    """One row a sample.

    Args:
        ranks: int64 [N], 1 the best.
        samples: ``data.Samples``, N of them.
        data: the data set they are of.

    Returns columns ``user`` and ``item`` (the target), ids as the source writes them; ``rank``;
    ``history_length`` (the whole history); ``item_count``, how often the target is a training target.
    """
    targets = np.asarray(samples.targets)
    return pd.DataFrame(
        {
            "user": np.asarray(data.user_ids, dtype=object)[samples.user],
            "item": np.asarray(data.item_ids, dtype=object)[targets],
            "rank": ranks.numpy(),
            "history_length": samples.end - samples.start,
            "item_count": np.asarray(data.item_count)[targets],
        }
    )
