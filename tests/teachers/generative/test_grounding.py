import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.teachers.generative.grounding import CONFIDENCE, grounded_distances, normalised_popularity

TITLES = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
EVEN = torch.zeros(3)


def test_distances_by_hand():
    found = grounded_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [9.0, 12.0]]), TITLES, EVEN, 0.0)
    # L2: 0 5 10, 5 0 5, 15 10 5; from the nearest to the farthest.
    torch.testing.assert_close(found, torch.tensor([[0, 0.5, 1], [1, 0, 1], [1, 0.5, 0]]))


def test_popular_items_come_nearer_by_hand():
    popularity = torch.tensor([0.0, 1.0, 0.5])
    found = grounded_distances(torch.tensor([[0.0, 0.0]]), TITLES, popularity, 2.0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.5 / 4, 1 / 2.25]]))


def test_counts_become_popularity_between_0_and_1():
    assert normalised_popularity(torch.tensor([2, 4, 10, 2])).tolist() == [0, 0.25, 1, 0]
    assert normalised_popularity(torch.tensor([3, 3])).tolist() == [0, 0]


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 50), st.floats(0, 5))
def test_a_catalogue_title_is_nearest_to_itself(seed, written, items, gamma):
    generator = torch.Generator().manual_seed(seed)
    # As hidden states are: far from the origin, near each other.
    titles = 50 + torch.randn(items, 16, generator=generator)
    chosen = torch.randint(items, (written,), generator=generator)
    popularity = torch.rand(items, generator=generator)
    found = grounded_distances(titles[chosen], titles, popularity, gamma)
    assert found.shape == (written, items)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert found.argmin(dim=1).tolist() == chosen.tolist()
    assert found[torch.arange(written), chosen].tolist() == [0] * written


@given(st.integers(0, 2**31))
def test_distances_do_not_depend_on_the_scale_of_embeddings(seed):
    generator = torch.Generator().manual_seed(seed)
    titles, written = torch.randn(9, 4, generator=generator), torch.randn(3, 4, generator=generator)
    small, large = (grounded_distances(scale * written, scale * titles, torch.zeros(9), 0.0) for scale in (1, 64))
    torch.testing.assert_close(small, large)


def test_the_manifest_can_say_what_a_distance_is():
    said = CONFIDENCE.format(gamma=0.5)
    assert "^-0.5" in said
    assert "small is sure" in said
    with pytest.raises(KeyError):
        CONFIDENCE.format()
