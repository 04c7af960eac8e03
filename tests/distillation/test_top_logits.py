import pytest
import torch

from recdistill.distillation import fused, losses
from recdistill.distillation.top_logits import kth_largest


@pytest.mark.parametrize("items", [12, 500, 700, 1300, 5000])
@pytest.mark.parametrize("contiguous", [True, False])
def test_consistency_is_membership_in_the_top(items, contiguous):
    generator = torch.Generator().manual_seed(items)
    logits = torch.randn(6, items, generator=generator)
    logits[:3, -(items % 64)] = 9  # the search leaves no item out at the end of the catalogue
    if not contiguous:
        logits = logits.t().contiguous().t()
    top = logits.topk(10, dim=1).indices
    # Items about the border of the top: those of ranks 6 to 15, so that an error of one rank shows.
    candidates = logits.topk(min(15, items), dim=1).indices[:, -10:]
    expected = (candidates.unsqueeze(2) == top.unsqueeze(1)).any(2)
    assert torch.equal(fused.consistency_weights(logits, candidates) > 0.5, expected)
    assert torch.equal(fused.consistency_weights(logits, candidates), losses.consistency_weights(logits, candidates))
    assert expected.any()
    assert not expected.all()


@pytest.mark.parametrize(("items", "k"), [(5, 5), (64, 1), (200, 1), (641, 3), (2000, 10)])
def test_is_the_last_of_the_k_largest_with_equal_logits_counted_apart(items, k):
    logits = torch.randint(6, (7, items), generator=torch.Generator().manual_seed(items)).float()
    assert torch.equal(kth_largest(logits, k), logits.topk(k, dim=1).values[:, -1:])
