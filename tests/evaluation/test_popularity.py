"""The popularity baseline ranks by count alone."""

import numpy as np
import torch

from recdistill.data.samples import Samples
from recdistill.evaluation.evaluate import rank_samples
from recdistill.evaluation.popularity import popularity_scores


def test_ranks_follow_the_counts():
    counts = torch.tensor([5, 9, 0, 2])
    # Four one-item histories of item 2 with targets 0, 1, 3 and 2 itself, which is never recommended again.
    samples = Samples(np.array([2, 0, 2, 1, 2, 3, 2, 2]), np.arange(0, 8, 2), np.arange(1, 8, 2), np.arange(4))
    ranks = rank_samples(popularity_scores(counts), samples, num_items=4, max_length=3).ranks
    assert ranks.tolist() == [2, 1, 3, 5]


def test_counts_beyond_float32_are_told_apart():
    scores = popularity_scores(torch.tensor([2**24, 2**24 + 1]))(*[torch.zeros(1, dtype=torch.int64)] * 4)
    assert scores[0, 1] > scores[0, 0]
