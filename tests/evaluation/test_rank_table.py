"""Ranks with the ids of the source, and what tells how hard each sample is."""

import numpy as np
import torch

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.rank_table import rank_table


def test_columns_by_hand():
    items = np.array([0, 1, 2, 1, 0])
    train = Samples(items, np.array([0, 3]), np.array([1, 4]), np.array([0, 1]))
    test = Samples(items, np.array([0, 3]), np.array([2, 4]), np.array([0, 1]))
    data = SequenceData("x", "y", 3, ("A", "B", "C"), ("a", "b", "c"), ("ann", "bob"), train, test, test, "f")
    best = torch.empty(2, 0, dtype=torch.int64)
    table = rank_table(Ranked(torch.tensor([7, 1]), best), test, data)
    without_new = rank_table(Ranked(torch.tensor([7, 1]), best, torch.tensor([0, 0])), test, data)
    assert without_new.equals(table)
    with_new = rank_table(Ranked(torch.tensor([7, 1]), best, torch.tensor([2, 0])), test, data)
    assert with_new.drop(columns=["new", "rank_among_new"]).equals(table)
    assert with_new["new"].tolist() == [True, False]
    assert with_new["rank_among_new"].tolist() == [2, 0]
    assert table.to_dict("list") == {
        "user": ["ann", "bob"],
        "item": ["c", "a"],
        "rank": [7, 1],
        "history_length": [2, 1],
        "item_count": [0, 1],
    }
