"""Interactions without order: who had which items in training, and which items were had together."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from recdistill.data.samples import Samples
    from recdistill.data.sequences import SequenceData


def longest_history(data: "SequenceData") -> int:
    """Items in the longest history of any sample."""
    return max(int((part.end - part.start).max()) for part in (data.train, data.validation, data.test) if len(part))


def interaction_matrix(samples: "Samples", num_items: int) -> Any:
    """SciPy's sparse float64 [U, V], 1 where a user had an item in training: in a sample's history or as its target.

    Interactions that are no part of a sample, as the validation and test targets that follow, are left out. Where the
    data names no users, each row of it is a user.
    """
    # Not at the top: a recommender that is loaded to answer needs no SciPy.
    from scipy.sparse import csr_array

    size = len(samples.items)
    begins = np.bincount(samples.start, minlength=size + 1)
    ends = np.bincount(samples.end + 1, minlength=size + 1)
    in_training = np.cumsum(begins - ends)[:size] > 0
    # The users' items stand one after another: a place belongs to the user of the last history that begins before it.
    beginning = np.zeros(size, dtype=np.int64)
    beginning[samples.start] = samples.start
    owner = np.zeros(size, dtype=np.int64)
    owner[samples.start] = samples.user
    user = owner[np.maximum.accumulate(beginning)][in_training]
    pairs = np.unique(user * num_items + samples.items[in_training])
    _, row = np.unique(pairs // num_items, return_inverse=True)
    users = int(row.max()) + 1 if len(row) else 0
    return csr_array((np.ones(len(pairs)), (row, pairs % num_items)), shape=(users, num_items))


def cooccurrence(matrix: Any, begin: int, end: int) -> Tensor:
    """Users who had both of two items: float64 [end - begin, V], of the items ``begin`` to ``end`` with all items.

    ``matrix`` is sparse [U, V], of `interaction_matrix`.
    """
    return torch.from_numpy((matrix[:, begin:end].T @ matrix).toarray())


def multi_hot(history: Tensor, length: Tensor, num_items: int) -> Tensor:
    """1 where an item is in a history, else 0: float32 [B, V] of right-padded histories [B, L] of ``length`` [B]."""
    padding = torch.arange(history.shape[1], device=history.device) >= length.unsqueeze(1)
    found = torch.zeros(history.shape[0], num_items + 1, device=history.device)
    return found.scatter_(1, history.masked_fill(padding, num_items), 1.0)[:, :num_items]
