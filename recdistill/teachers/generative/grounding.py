"""From a title that an LLM wrote to a ranking of the whole catalogue (BIGRec, arXiv 2308.08434, section 3.2).

The distance of an item is the L2 distance of its title's embedding to that of the written one, and where popularity is
adjusted for, times (1 + popularity)^-gamma. The nearest item is the best, and its distance the confidence.
"""

import torch
from torch import Tensor

#: Definition of a distance, for a manifest; a small distance is sure.
CONFIDENCE = (
    "L2 distance between LLM embeddings of the title that the teacher wrote and of the item's, min-max normalised over "
    "the catalogue, times (1 + popularity)^-{gamma:g}; small is sure"
)


def grounded_distances(written: Tensor, titles: Tensor, popularity: Tensor, gamma: float) -> Tensor:
    """Distance of every item to each written title, float32 [S, V], in [0, 1].

    Args:
        written: embeddings of written titles [S, H].
        titles: embeddings of the catalogue's titles [V, H], made in the same way.
        popularity: [V], in [0, 1]; see `normalised_popularity`.
        gamma: strength of the adjustment for popularity; 0 leaves it out. The nearest item stays the first, at 0.
    """
    # The quick way over inner products is off by more than the distance of a title to itself.
    distance = torch.cdist(written.float(), titles.float(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest, farthest = distance.aminmax(dim=1, keepdim=True)
    normalised = (distance - nearest) / (farthest - nearest).clamp(min=torch.finfo(torch.float32).tiny)
    return normalised * (1 + popularity) ** -gamma


def normalised_popularity(count: Tensor) -> Tensor:
    """Counts [V] of training targets, min-max normalised: float32 in [0, 1], all 0 where all are alike."""
    least, most = count.float().aminmax()
    return (count.float() - least) / (most - least).clamp(min=1.0)
