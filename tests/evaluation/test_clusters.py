"""Clusters of points that lie in clear groups, and what tells such groups apart."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.clusters import k_means, typical_items


def groups(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in far groups, and the group of each."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    centres = 100 * torch.eye(len(sizes), 5)
    points = centres[group] + torch.randn(len(group), 5, generator=generator)
    order = torch.randperm(len(group), generator=generator)
    return points[order], group[order]


@pytest.mark.parametrize("seed", range(5))
def test_clear_groups_are_found_the_largest_first(seed: int) -> None:
    points, group = groups([20, 50, 5, 30])
    assert torch.equal(k_means(points, 4, seed), torch.tensor([2, 0, 3, 1])[group])


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 3), st.booleans())
def test_every_cluster_has_a_point_and_larger_ones_come_first(points: int, clusters: int, seed: int, few: bool) -> None:
    torch.manual_seed(seed)
    drawn = torch.randint(2, (points, 1)).float() if few else torch.randn(points, 3)
    found = k_means(drawn, clusters, seed)
    counts = found.bincount()
    assert len(found) == points
    assert bool((counts > 0).all())
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert len(counts) <= min(clusters, len(drawn.unique(dim=0)))
    assert torch.equal(found, k_means(drawn, clusters, seed))


def test_at_the_end_each_point_is_nearest_to_the_mean_of_its_own() -> None:
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(2))
    found = k_means(points, 5)
    means = torch.stack([points[found == cluster].mean(dim=0) for cluster in range(5)])
    assert torch.equal(torch.cdist(points, means).argmin(dim=1), found)


def test_typical_items_are_those_a_cluster_has_more_of() -> None:
    cluster = torch.tensor([0, 0, 1, 1])
    # Item 0 is everybody's, 1 and 2 are the first cluster's, 3 the second's; 4 is padding.
    history = torch.tensor([[0, 1, 2], [0, 1, 4], [0, 3, 3], [3, 0, 4]])
    assert typical_items(cluster, history, 4, 5) == [[1, 2], [3]]
    assert typical_items(cluster, history, 4, 1) == [[1], [3]]


def test_one_cluster_stands_out_by_nothing() -> None:
    assert typical_items(torch.zeros(2, dtype=torch.int64), torch.tensor([[0, 1], [1, 2]]), 3, 2) == [[]]
