import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distillation.negatives import sampled_negatives
from recdistill.errors import InputError


@settings(deadline=None)
@given(st.data())
def test_every_unknown_item_is_drawn_and_no_known_one(data):
    num_items = data.draw(st.integers(3, 9))
    length = data.draw(st.integers(1, 6))
    # V is padding, and may stand anywhere.
    history = data.draw(st.lists(st.integers(0, num_items), min_size=length, max_size=length))
    target = data.draw(st.integers(0, num_items - 1))
    unknown = set(range(num_items)) - set(history) - {target}
    draws = 400
    rows = torch.tensor([history]).expand(draws, -1)
    generator = torch.Generator().manual_seed(0)
    if not unknown:
        with pytest.raises(InputError, match="knows all"):
            sampled_negatives("bce", rows, torch.full((draws,), target), num_items)
        return
    found = sampled_negatives("bce", rows, torch.full((draws,), target), num_items, generator)
    assert set(found.tolist()) == unknown


def test_draws_are_uniform_and_each_row_has_its_own_history():
    history = torch.tensor([[1, 3, 8], [0, 0, 2]]).repeat(20_000, 1)
    target = torch.tensor([5, 7]).repeat(20_000)
    found = sampled_negatives("bce", history, target, 8, torch.Generator().manual_seed(1)).view(-1, 2)
    for column, unknown in ((0, [0, 2, 4, 6, 7]), (1, [1, 3, 4, 5, 6])):
        count = torch.bincount(found[:, column], minlength=8)
        assert count[unknown].sum() == 20_000
        # Five standard deviations of a binomial count.
        assert (count[unknown] - 4000).abs().max() < 5 * (20_000 * 0.2 * 0.8) ** 0.5


def test_the_global_random_state_serves_where_no_generator_is_given():
    history, target = torch.tensor([[1, 2]] * 9), torch.full((9,), 3)
    torch.manual_seed(4)
    first = sampled_negatives("bce", history, target, 1000)
    torch.manual_seed(4)
    assert torch.equal(sampled_negatives("bce", history, target, 1000), first)
    assert not torch.equal(sampled_negatives("bce", history, target, 1000), first)


def test_a_loss_without_negatives_draws_none():
    before = torch.get_rng_state()
    assert sampled_negatives("ce", torch.tensor([[1, 2]]), torch.tensor([3]), 9) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        sampled_negatives("bce", torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 9)
    with pytest.raises(InputError, match="do not fit"):
        sampled_negatives("bce", torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("ranking_loss",), "^ranking_loss=bce: a sample knows all 3 items, .* set ranking_loss=ce$"),
        (
            ("base_loss", "ranking_loss"),
            "^base_loss=bce and ranking_loss=bce: .* set base_loss=ce and ranking_loss=ce$",
        ),
    ],
)
def test_a_sample_without_a_negative_names_the_options_that_ask_for_one(options, said):
    with pytest.raises(InputError, match=said):
        sampled_negatives("bce", torch.tensor([[0, 1]]), torch.tensor([2]), 3, options=options)
