import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.evaluation.slice_table import slice_table


def table_of(ranks, lengths, counts, users=None):
    return pd.DataFrame(
        {
            "user": range(len(ranks)) if users is None else users,
            "rank": ranks,
            "history_length": lengths,
            "item_count": counts,
        }
    )


def test_by_hand():
    found = slice_table(table_of([1, 30, 10, 11, 2, 3, 50], [1, 2, 3, 4, 5, 6, 6], [90, 90, 5, 5, 1, 1, 0]))
    assert list(found.columns) == ["kind", "subgroup", "samples", "hr_at_10", "low", "high"]
    rows = {(kind, name): (samples, share) for kind, name, samples, share, _, _ in found.itertuples(index=False)}
    assert rows == {
        ("all", "all"): (7, pytest.approx(4 / 7)),
        ("history", "1-3 items"): (3, pytest.approx(2 / 3)),
        ("history", "4-5 items"): (2, 0.5),
        ("history", "6 items"): (2, 0.5),
        ("popularity", "head (90)"): (2, 0.5),
        ("popularity", "middle (5)"): (2, 0.5),
        ("popularity", "tail (1)"): (2, 1.0),
        ("popularity", "cold (0)"): (1, 0.0),
    }


def test_another_cut_off():
    found = slice_table(table_of([1, 2, 3], [1, 1, 1], [1, 1, 1]), k=1)
    assert found["hr_at_1"].tolist() == pytest.approx([1 / 3] * 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_groups_of_a_kind_share_the_samples_and_the_hits_out(rows):
    found = slice_table(table_of(*(np.array(column) for column in zip(*rows, strict=True))))
    for _, group in found.groupby("kind"):
        assert group["samples"].sum() == len(rows)
        assert (group["samples"] * group["hr_at_10"]).sum() == pytest.approx(sum(rank <= 10 for rank, _, _ in rows))
    assert ((found["low"] <= found["hr_at_10"] + 1e-12) & (found["hr_at_10"] <= found["high"] + 1e-12)).all()


def test_samples_of_a_user_go_together_in_the_interval():
    ranks, same = [1] * 20 + [99] * 20, [1] * 40
    users = (range(40), [place // 5 for place in range(40)], ["u"] * 40)
    many, few, one = (slice_table(table_of(ranks, same, same, of)).iloc[0] for of in users)
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert (one["low"], one["high"]) == (0, 1)
