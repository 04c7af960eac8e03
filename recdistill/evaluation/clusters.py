"""Groups of users: k-means over their states, and the items that tell a group from the others."""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

ROUNDS = 100


def k_means(points: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """SciPy's k-means from centres drawn as k-means++ draws them (Arthur and Vassilvitskii, SODA 2007).

    Args:
        points: [N, D], N >= 1.
        clusters: how many, at most: there are fewer where fewer points differ.
        seed: of the first centres; the same seed gives the same clusters.

    Returns the cluster of each point, int64 [N] on the CPU: 0 is the largest, and none is empty.
    """
    table = points.detach().double().cpu().numpy()
    clusters = min(clusters, len(np.unique(table, axis=0)))
    with warnings.catch_warnings():
        # That a cluster ran empty: it is left out below.
        warnings.simplefilter("ignore", UserWarning)
        _, nearest = kmeans2(table, clusters, iter=ROUNDS, minit="++", seed=np.random.default_rng(seed))
    _, cluster, count = torch.from_numpy(nearest).long().unique(return_inverse=True, return_counts=True)
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
