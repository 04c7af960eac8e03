import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.evaluation.overlap import top_k_overlap

RANKING = st.permutations(range(9)).map(lambda items: items[:4])


def test_by_hand():
    first = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert top_k_overlap(first, torch.tensor([[3, 1, 9], [7, 8, 9]])) == pytest.approx(2 / 6)
    assert top_k_overlap(first, first.flip(1)) == 1
    assert top_k_overlap(first, first + 10) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(RANKING, RANKING), min_size=1, max_size=5))
def test_it_is_that_of_sets_either_way_round(pairs):
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    expected = sum(len(set(one) & set(other)) for one, other in pairs) / (4 * len(pairs))
    assert top_k_overlap(first, second) == pytest.approx(expected)
    assert top_k_overlap(second, first) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (0, 2)])
def test_rankings_that_do_not_fit_are_refused(shape):
    other = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match="do not fit"):
        top_k_overlap(other, torch.zeros(2, 2, dtype=torch.int64) if shape[0] else other)
