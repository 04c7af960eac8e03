"""Ranks with the ids of the source, and what tells how hard each sample is."""

import numpy as np
import pandas as pd
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.rank_table import SAMPLE, common_samples, rank_table


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


samples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20)


@given(samples, st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=3))
def test_samples_that_all_tables_have(whole, parts):
    whole = pd.DataFrame(whole, columns=list(SAMPLE)).assign(place=range(len(whole)))
    tables = [whole, *(whole[whole["user"].isin(users)] for users in parts)]
    wanted = whole[whole["user"].isin(set.intersection(*parts))]["place"].tolist()
    for table, places in zip(tables, common_samples(tables), strict=True):
        assert table["place"].iloc[places].tolist() == wanted


def test_a_target_that_a_user_has_again_is_the_same_sample_by_its_turn():
    one = pd.DataFrame({"user": ["a", "a", "b", "a"], "item": ["x", "y", "x", "x"]})
    other = pd.DataFrame({"user": ["a", "a", "a"], "item": ["x", "x", "y"]})
    assert [places.tolist() for places in common_samples([one, other])] == [[0, 1, 3], [0, 2, 1]]
