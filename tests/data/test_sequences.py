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


def test_an_item_that_is_the_target_of_repeats_alone_is_trained_and_not_learnt():
    # 0 1 | 0 1 2: of user one 1 is learnt; of user two 2, and its 1, which comes again, is not.
    items = np.array([3, 0, 1, 1, 2])
    train = Samples(items, np.array([0, 2, 2]), np.array([1, 3, 4]), np.array([0, 1, 1]))
    data = SequenceData("x", "leave-one-out", 5, tuple("abcde"), tuple("01234"), ("u", "v"), train, train, train, "f")
    assert data.trained.tolist() == [True, True, True, False, False]
    assert data.learnt(exclude_seen=True).tolist() == [True, False, True, False, False]
    assert data.learnt(exclude_seen=False).tolist() == data.trained.tolist()
