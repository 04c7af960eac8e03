import struct

import numpy as np
import pandas as pd
import pytest

from recdistill.evaluation.slice_table import slice_table
from recdistill.report.slice_figure import FEWEST, group_name, reach_of, slice_figure

MOST_BYTES = 80_000


def ranks_of(seed, scale=60.0, cold=True):
    drawn = np.random.default_rng(seed)
    count = drawn.poisson(drawn.gamma(0.8, 60, 400)) if cold else np.ones(400, dtype=int)
    return pd.DataFrame(
        {
            "user": range(400),
            "rank": 1 + drawn.exponential(scale, 400).astype(int),
            "history_length": drawn.integers(1, 200, 400),
            "item_count": count,
        }
    )


def size_of(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def test_one_recommender_and_four_are_small_pictures():
    tables = {name: slice_table(ranks_of(seed)) for seed, name in enumerate(("popularity", "a", "teacher", "b"))}
    for names in (["b"], list(tables)):
        png = slice_figure({name: tables[name] for name in names}, "HR@10 on drawn data, test")
        width, height = size_of(png)
        assert 400 < width < 1100
        assert 300 < height < 500
        assert len(png) < MOST_BYTES


def test_the_same_tables_give_the_same_picture():
    tables = {"a": slice_table(ranks_of(0)), "b": slice_table(ranks_of(1))}
    assert slice_figure(tables, "title") == slice_figure(tables, "title")
    assert slice_figure(tables, "title") != slice_figure({"a": tables["b"], "b": tables["a"]}, "title")


@pytest.mark.parametrize(
    "ranks",
    [
        ranks_of(0, cold=False),
        ranks_of(0).assign(history_length=3, item_count=0),
        ranks_of(0).assign(rank=999),
        ranks_of(0).head(1),
    ],
    ids=["one popularity", "one group each", "no hit", "one sample"],
)
def test_groups_that_are_missing_are_no_error(ranks):
    size_of(slice_figure({"a $\\frac{": slice_table(ranks), "b": slice_table(ranks)}, "$\\frac{"))
    size_of(slice_figure({"a": slice_table(ranks)}, "title"))


def test_a_groups_range_stands_below_its_name():
    assert group_name("head (168-583)") == "head\n168-583"
    assert group_name("12-30 items") == "12-30 items"


def test_an_interval_of_few_samples_does_not_set_the_scale():
    rows = pd.DataFrame({"samples": [FEWEST, FEWEST - 1], "hr_at_10": [0.1, 0.2], "high": [0.3, 0.9]})
    assert reach_of(rows, "hr_at_10").tolist() == [0.3, 0.2]
