import torch

from recdistill.distillation.exclusion import excluded_of_rows, excluded_with_columns, logits_without, without_kept


def excluded(*pairs):
    return torch.tensor([row for row, _ in pairs]).long(), torch.tensor([item for _, item in pairs]).long()


def pairs_of(found):
    return list(zip(*(part.tolist() for part in found[:2]), strict=True))


def test_kept_items_compete_in_their_own_row_alone():
    found = without_kept(excluded((0, 3), (0, 5), (1, 3), (2, 7)), torch.tensor([[3, 9], [5, 5], [7, 3]]))
    assert pairs_of(found) == [(0, 5), (1, 3)]


def test_rows_are_counted_anew():
    given = excluded((0, 3), (1, 1), (1, 2), (3, 0))
    assert pairs_of(excluded_of_rows(given, torch.tensor([1, 2, 3]))) == [(0, 1), (0, 2), (2, 0)]
    assert pairs_of(excluded_of_rows(given, torch.tensor([2]))) == []
    assert pairs_of(excluded_of_rows(given, torch.tensor([], dtype=torch.int64))) == []
    assert excluded_of_rows(None, torch.tensor([0])) is None


def test_excluded_logits_have_the_probability_0_and_no_gradient():
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    lowered = logits_without(logits, excluded((0, 1), (1, 3)))
    probability = lowered.softmax(dim=1)
    assert probability[0, 1] == 0
    assert probability[1, 3] == 0
    torch.testing.assert_close(probability[0, [0, 2, 3]], logits[0, [0, 2, 3]].softmax(dim=0))
    entropy = -(probability * lowered.log_softmax(dim=1)).sum()
    (gradient,) = torch.autograd.grad(entropy, logits)
    assert bool(torch.isfinite(entropy))
    assert gradient[0, 1] == gradient[1, 3] == 0
    assert logits_without(logits, None) is logits


def test_a_kept_item_that_is_repeated_is_counted_once():
    """Else its logit's gradient would come more than once."""
    kept = torch.tensor([[2, 2, 0], [1, 2, 1]])
    found = excluded_with_columns(None, torch.tensor([1, 2]), kept)
    assert pairs_of(found.kept) == [(0, 2), (1, 1), (1, 2)]
    logits = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(logits_without(logits, found).sum(), logits)
    assert gradient.tolist() == [[1, 0, 1], [1, 1, 1]]
