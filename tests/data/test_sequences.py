"""Counts of training targets."""

import numpy as np

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData


def test_only_training_targets_are_counted():
    items = np.array([0, 1, 1, 2, 3])
    train = Samples(items, np.array([0, 0]), np.array([1, 2]), np.array([0, 0]))
    later = Samples(items, np.array([0]), np.array([3]), np.array([0]))
    data = SequenceData("x", "leave-one-out", 5, tuple("abcde"), tuple("01234"), ("u",), train, later, later, "f")
    assert data.item_count.tolist() == [0, 2, 0, 0, 0]
    assert data.item_count.dtype == np.int64
    assert data.padding_id == 5
    catalogue = data.catalogue
    assert (catalogue.item_ids, catalogue.titles) == (tuple("01234"), tuple("abcde"))
    assert catalogue.item_count.tolist() == [0, 2, 0, 0, 0]
