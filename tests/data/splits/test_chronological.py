"""The chronological split, on small cases by hand and on MovieLens-100K."""

import numpy as np
import pytest
from interaction_logs import log_of, triples

from recdistill.config.data import DataConfig
from recdistill.data.sources.ml_100k import ml_100k
from recdistill.data.splits.chronological import chronological
from recdistill.errors import InputError


def test_chronological_by_hand():
    rows = [(0, item, item) for item in range(6)] + [(1, 6, 6), (1, 7, 7), (0, 8, 8), (1, 9, 9)]
    train, validation, test = chronological(log_of(rows))
    assert triples(train) == [(0, list(range(end)), end) for end in range(1, 6)] + [(1, [6], 7)]
    assert triples(validation) == [(0, [0, 1, 2, 3, 4, 5], 8)]
    assert triples(test) == [(1, [6, 7], 9)]


def test_chronological_ties_at_the_borders_keep_file_order():
    random = np.random.default_rng(0)
    # Each item stands once; few distinct times, so that both borders fall among ties.
    times = random.integers(7, size=1000).tolist()
    rows = [(int(user), item, times[item]) for item, user in enumerate(random.integers(5, size=1000))]
    by_time = sorted(range(1000), key=lambda item: times[item])  # Python's sort is stable
    _, validation, test = chronological(log_of(rows))
    assert set(validation.targets.tolist()) == set(by_time[800:900])
    assert set(test.targets.tolist()) == set(by_time[900:])


def test_a_user_who_only_comes_late_has_no_sample():
    rows = [(0, item, item) for item in range(19)] + [(1, 19, 100)]
    _, _, test = chronological(log_of(rows))
    assert [user for user, _, _ in triples(test)] == [0]
    with pytest.raises(InputError, match="no test sample of 10"):
        chronological(log_of([(0, item, item) for item in range(9)] + [(1, 9, 100)]))


def test_movielens_sizes():
    parts = chronological(ml_100k(DataConfig()))
    assert sum(map(len, parts)) == 100_000 - 943
    assert len(parts[2]) <= 10_000
