"""The mean reciprocal rank against fractions written by hand."""

import pytest
import torch

from recdistill.evaluation.metrics.mrr import reciprocal_ranks


def test_reciprocal_rank_by_hand():
    found = reciprocal_ranks(torch.tensor([1, 2, 3, 7, 100]))
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 7, 1 / 100])
