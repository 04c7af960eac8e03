"""Interactions as a source gives them."""

from interaction_logs import log_of


def test_their_number():
    assert len(log_of([(0, 1, 5), (1, 0, 3)])) == 2
