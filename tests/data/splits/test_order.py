"""The order that splits share."""

from interaction_logs import log_of

from recdistill.data.splits.order import order_by_time


def test_by_user_then_time_then_place_in_the_file():
    log = log_of([(1, 0, 9), (0, 1, 5), (1, 2, 3), (0, 3, 5), (1, 4, 3)])
    assert order_by_time(log).tolist() == [1, 3, 2, 4, 0]
