"""The order that splits share."""

import numpy as np
import pytest
from interaction_logs import log_of

from recdistill.data.splits.order import order_by_time, tied_share


def test_by_user_then_time_then_place_in_the_file():
    log = log_of([(1, 0, 9), (0, 1, 5), (1, 2, 3), (0, 3, 5), (1, 4, 3)])
    assert order_by_time(log).tolist() == [1, 3, 2, 4, 0]


def test_the_share_of_tied_interactions_is_that_of_a_loop():
    user, time = np.array([0, 0, 0, 1, 1, 2]), np.array([4, 4, 5, 5, 6, 6])
    assert tied_share(user, time) == 2 / 6
    assert tied_share(user[:0], time[:0]) == 0


@pytest.mark.parametrize(("seconds", "coarse"), [(86_400, True), (1, False)])
def test_times_that_are_too_coarse_to_order_by_are_said(said, seconds, coarse):
    """A day each ten interactions: what comes first of a day is the file's order."""
    log = log_of(
        [(user, 0, (1000 * user + 8640 * place) // seconds * seconds) for user in range(40) for place in range(50)]
    )
    order_by_time(log)
    found = said()
    assert len(found) == coarse
    assert all("have the time of another one of their user" in line for line in found)
