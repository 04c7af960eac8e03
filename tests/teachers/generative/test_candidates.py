import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.teachers.generative.candidates import draw_candidates


def draw(seen, target, num_items, count, seed=0):
    return draw_candidates(seen, target, num_items, count, np.random.default_rng(seed)).tolist()


@given(st.data(), st.integers(2, 40), st.integers(0, 2**32))
def test_the_target_is_among_them_and_no_seen_item_is(data, num_items, seed):
    seen = data.draw(st.lists(st.integers(0, num_items - 1), max_size=30))
    target = data.draw(st.integers(0, num_items - 1))
    left = set(range(num_items)) - {*seen, target}
    count = data.draw(st.integers(1, len(left) + 1))
    found = draw(seen, target, num_items, count, seed)
    assert len(found) == len(set(found)) == count
    assert set(found) - {target} <= left
    assert target in found
    assert found == draw(seen, target, num_items, count, seed)


def test_every_unseen_item_and_every_place_is_as_likely():
    generator = np.random.default_rng(1)
    draws = np.array([draw_candidates([2, 5, 5, 9], 7, 10, 4, generator) for _ in range(6000)])
    counts = np.bincount(draws.ravel(), minlength=10)
    assert counts[[2, 5, 9]].tolist() == [0, 0, 0]
    assert counts[7] == 6000
    assert counts[[0, 1, 3, 4, 6, 8]] == pytest.approx(3000, rel=0.06)
    assert (draws == 7).sum(axis=0) == pytest.approx(1500, rel=0.1)


def test_a_catalogue_that_is_too_small_is_refused():
    assert sorted(draw([0, 1], 2, 6, 4)) == [2, 3, 4, 5]
    with pytest.raises(InputError, match=r"candidates=5: a history leaves only 3 of 6 items besides the next"):
        draw([0, 1], 2, 6, 5)
