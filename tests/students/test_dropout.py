import pytest
import torch
from torch import nn

from recdistill.errors import InputError
from recdistill.students.dropout import Dropout, random_bytes

ELEMENTS = 400_000


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9, 0.99])
def test_elements_are_zeroed_independently_with_the_probability_and_the_mean_is_kept(probability: float) -> None:
    torch.manual_seed(1)
    dropout = Dropout(probability)
    values = torch.ones(ELEMENTS)
    found = dropout(values)
    keep = dropout.kept_levels / 256
    assert abs(keep - (1 - probability)) <= 1 / 512
    assert found.unique().tolist() == [0.0, pytest.approx(1 / keep)]
    deviation = (keep * (1 - keep) / ELEMENTS) ** 0.5
    kept = (found > 0).double()
    assert abs(kept.mean().item() - keep) < 5 * deviation
    assert abs(found.mean().item() - 1) < 5 * deviation / keep
    # Neighbours, of one random number and of two, know nothing of each other.
    for distance in (*range(1, 10), 64):
        both = (kept[distance:] * kept[:-distance]).mean().item()
        assert abs(both - keep**2) < 5 * (keep**2 * (1 - keep**2) / (ELEMENTS - distance)) ** 0.5, distance


def test_all_bytes_are_equally_likely_at_each_place_of_a_number() -> None:
    torch.manual_seed(0)
    counts = torch.stack([place.long().bincount(minlength=256) for place in random_bytes(8 * 2**17).view(-1, 8).T])
    expected = 2**17 / 256
    chi_squared = ((counts - expected).square() / expected).sum(dim=1)
    # 255 degrees of freedom: mean 255, deviation 22.6.
    assert ((chi_squared - 255).abs() < 5 * 22.6).all()
    assert len(random_bytes(13)) == 13


def test_the_gradient_goes_where_values_were_kept_and_as_much() -> None:
    values = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
    found = Dropout(0.4)(values)
    (gradient,) = torch.autograd.grad(found.square().sum() / 2, values)
    kept = found != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(gradient, torch.where(kept, found * (found / values), 0.0).detach())


def test_it_draws_from_torchs_generator() -> None:
    dropout, values = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(3)
    first, state = dropout(values), torch.get_rng_state()
    second = dropout(values)
    torch.manual_seed(3)
    assert torch.equal(dropout(values), first)
    torch.set_rng_state(state)
    assert torch.equal(dropout(values), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_in_evaluation_and_at_probability_0_it_is_the_identity_and_draws_nothing(probability: float) -> None:
    dropout, values = Dropout(probability), torch.randn(5)
    if probability:
        dropout.eval()
    before = torch.get_rng_state()
    assert dropout(values) is values
    assert torch.equal(torch.get_rng_state(), before)


def test_it_saves_nothing_as_torchs() -> None:
    assert Dropout(0.5).state_dict() == nn.Dropout(0.5).state_dict()


@pytest.mark.parametrize("probability", [1.0, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(InputError, match="dropout="):
        Dropout(probability)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_under_vmap_each_element_has_a_byte_of_its_own(probability: float) -> None:
    torch.manual_seed(1)
    dropout, models = Dropout(probability), 4
    values = torch.ones(models, ELEMENTS // models, requires_grad=True)
    found = torch.func.vmap(dropout, randomness="different")(values)
    keep = dropout.kept_levels / 256
    kept = (found.detach() > 0).double()
    deviation = (keep * (1 - keep) / kept.shape[1]) ** 0.5
    assert (kept.mean(dim=1) - keep).abs().max().item() < 5 * deviation
    # The masks of two models know nothing of each other.
    apart = torch.corrcoef(kept) - torch.eye(models)
    assert apart.abs().max().item() < 5 / kept.shape[1] ** 0.5
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, found)
    # All are drawn as one tensor's would be.
    torch.manual_seed(1)
    assert torch.equal(found, dropout(values))
