"""The popularity baseline: every user gets the most frequent training targets."""

import torch
from torch import Tensor

from recdistill.evaluation.evaluate import ScoreFunction


def popularity_scores(item_count: Tensor) -> ScoreFunction:
    """Make a score function for `rank_samples` that ignores the history.

    Args:
        item_count: [V], how often each item is a training target (``SequenceData.item_count`` as a tensor).
    """
    popularity = item_count.to(torch.float64)

    def score(history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Scores [B, V], one row a sample; ``row`` [B] says how many samples there are."""
        return popularity.expand(len(row), -1)

    return score
