"""The order of interactions that all splits share."""

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.data.samples import Int64Array, Samples

#: Training, validation and test samples.
Parts = tuple[Samples, Samples, Samples]


def order_by_time(interactions: Interactions) -> Int64Array:
    """Positions of the interactions by user, each user's by timestamp, ties in file order, int64 [N]."""
    # lexsort is stable, and 415 of MovieLens-100K's 943 users tie at their last timestamp.
    return np.lexsort((interactions.timestamp, interactions.user))
