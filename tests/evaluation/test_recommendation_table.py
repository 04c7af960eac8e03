from types import SimpleNamespace

import numpy as np
import torch

from recdistill.data.samples import Samples
from recdistill.evaluation.recommendation_table import recommendation_table


def test_ids_are_those_of_the_source_and_places_without_an_item_are_left_out():
    data = SimpleNamespace(user_ids=("ann", "bob"), item_ids=("a", "b", "c"), item_count=np.zeros(3))
    samples = Samples(np.array([0, 1, 2, 1, 0]), [0, 3, 0], [2, 4, 1], [0, 1, 0])
    table = recommendation_table(torch.tensor([[2, 1], [0, 3], [3, 3]]), samples, data)
    assert list(table.columns) == ["user", "item", "items"]
    assert table["user"].tolist() == ["ann", "bob", "ann"]
    assert table["item"].tolist() == ["c", "a", "b"]
    assert table["items"].tolist() == [["c", "b"], ["a"], []]
