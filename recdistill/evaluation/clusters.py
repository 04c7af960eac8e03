"""Groups of users: k-means over their states, and the items that tell a group from the others."""

import torch
from torch import Tensor

MOST_ROUNDS = 100


def k_means(points: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Lloyd's k-means from centres drawn as k-means++ draws them (Arthur and Vassilvitskii, SODA 2007).

    Args:
        points: [N, D], N >= 1.
        clusters: how many, at most: there are fewer where fewer points differ.
        seed: of the first centres; the same seed gives the same clusters.

    Returns the cluster of each point, int64 [N] on the CPU: 0 is the largest, and none is empty.
    """
    points = points.detach().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centres) < clusters:
        distance = torch.cdist(points, centres).square().amin(dim=1)
        if not distance.any():
            break
        centres = torch.cat([centres, points[torch.multinomial(distance, 1, generator=generator)]])
    nearest = torch.full((len(points),), -1)
    for _ in range(MOST_ROUNDS):
        before, nearest = nearest, torch.cdist(points, centres).argmin(dim=1)
        if torch.equal(before, nearest):
            break
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        count = nearest.bincount(minlength=len(centres)).unsqueeze(1)
        centres = torch.where(count > 0, sums / count.clamp(min=1), centres)
    _, cluster, count = nearest.unique(return_inverse=True, return_counts=True)
    return count.argsort(descending=True, stable=True).argsort()[cluster]


def typical_items(cluster: Tensor, history: Tensor, num_items: int, count: int) -> list[list[int]]:
    """The items that stand out most in each cluster's histories, at most ``count`` of them, the clearest first.

    An item of share p in the cluster's histories and q in all of them stands out by p log(p / q), its part of the
    Kullback-Leibler divergence between the two.

    Args:
        cluster: int64 [N], from 0 without a gap, as of `k_means`.
        history: item ids int64 [N, L], padded with ``num_items``.
        num_items: V.
        count: items a cluster.
    """
    real = history < num_items
    place = (cluster.unsqueeze(1) * num_items + history)[real]
    clusters = int(cluster.max()) + 1
    counts = place.bincount(minlength=clusters * num_items).view(clusters, num_items).double()
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    overall = counts.sum(dim=0) / counts.sum().clamp(min=1)
    standing_out = torch.xlogy(share, share / overall.clamp(min=1e-300))
    best = standing_out.topk(min(count, num_items), dim=1)
    return [
        [item for item, value in zip(items, values, strict=True) if value > 0]
        for items, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
