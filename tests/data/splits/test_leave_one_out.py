"""Leave-one-out, on small cases by hand and on MovieLens-100K."""

import numpy as np
import pytest
from interaction_logs import log_of, triples

from recdistill.config.data import DataConfig
from recdistill.data.sources.ml_100k import ml_100k
from recdistill.data.splits.leave_one_out import leave_one_out
from recdistill.data.splits.order import order_by_time
from recdistill.errors import InputError

LOG = log_of([(0, 3, 30), (1, 7, 5), (0, 1, 10), (0, 2, 20), (1, 8, 6), (0, 4, 40), (1, 9, 7)])


def test_leave_one_out_by_hand():
    train, validation, test = leave_one_out(LOG)
    assert triples(train) == [(0, [1], 2)]
    assert triples(validation) == [(0, [1, 2], 3), (1, [7], 8)]
    assert triples(test) == [(0, [1, 2, 3], 4), (1, [7, 8], 9)]


def test_ties_keep_file_order():
    rows = [(0, item, 5) for item in (4, 2, 9, 1)]
    assert triples(leave_one_out(log_of(rows))[2]) == [(0, [4, 2, 9], 1)]


def test_a_user_with_two_interactions_is_named():
    with pytest.raises(InputError, match=r"log.csv: user u1 has 2 interactions.*min_interactions=3") as caught:
        leave_one_out(log_of([(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1), (1, 1, 2)]))
    assert "\n" not in str(caught.value)


def test_movielens_ties_and_float32():
    log = ml_100k(DataConfig())
    last = np.full(943, -1, dtype=np.int64)
    np.maximum.at(last, log.user, log.timestamp)
    at_last = np.bincount(log.user[log.timestamp == last[log.user]], minlength=943)
    assert (at_last > 1).sum() == 415
    exact = leave_one_out(log)[2]
    rounded_time = log.timestamp.astype(np.float32)
    rounded = log.item[np.lexsort((rounded_time, log.user))]
    assert (exact.targets != rounded[exact.end]).sum() == 149
    assert np.array_equal(log.item[order_by_time(log)], exact.items)


def test_movielens_sizes():
    assert [len(samples) for samples in leave_one_out(ml_100k(DataConfig()))] == [100_000 - 3 * 943, 943, 943]
