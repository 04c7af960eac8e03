"""Averages are those of the formula, copied back and forth without a trace."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recdistill.training import averaging
from recdistill.training.averaging import AveragedWeights, exchange, overwrite, warmed_decay


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 0.9999), st.integers(1, 40), st.integers(0, 2**31))
def test_is_the_moving_average_of_the_formula(decay, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    current = {"a": torch.zeros(3, 2, dtype=torch.float64), "b": torch.zeros(4, dtype=torch.float64)}
    overwrite(current, {name: torch.randn(one.shape, generator=generator).double() for name, one in current.items()})
    averages = AveragedWeights(current, decay)
    expected = {name: one.clone() for name, one in current.items()}
    for step in range(steps):
        for name, one in current.items():
            one += torch.randn(one.shape, generator=generator).double()
            kept = min(decay, (1 + step) / (10 + step))
            expected[name] = kept * expected[name] + (1 - kept) * one
        averages.update(step)
    for name, one in expected.items():
        torch.testing.assert_close(averages.tensors[name], one, rtol=1e-12, atol=1e-12)


def test_the_start_is_forgotten_where_a_constant_decay_would_keep_it():
    """After 200 steps at 1 from a start at 0; 0.998 ** 200 is 0.67."""
    current = {"a": torch.zeros(1)}
    averages = AveragedWeights(current, 0.998)
    current["a"].fill_(1)
    for step in range(200):
        averages.update(step)
    assert averages.tensors["a"] > 0.999
    assert warmed_decay(0.998, 0) == 0.1
    assert warmed_decay(0.998, 10**6) == 0.998


def test_what_does_not_change_is_its_own_average_to_the_last_bit():
    current = {"frozen": torch.randn(1000)}
    averages = AveragedWeights(current, 0.9)
    for step in range(50):
        averages.update(step)
    assert torch.equal(averages.tensors["frozen"], current["frozen"])


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 0.9999), st.integers(1, 30), st.integers(0, 2**31), st.lists(st.integers(0, 30), max_size=3))
def test_rows_that_wait_have_the_averages_of_rows_that_do_not(decay, steps, seed, looks):
    generator = torch.Generator().manual_seed(seed)
    table = nn.Parameter(torch.randn(7, 2, generator=generator, dtype=torch.float64))
    other = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))
    current = {"table": table, "other": other}
    lazy, plain = AveragedWeights(current, decay, [table]), AveragedWeights(current, decay)
    kept = AveragedWeights(current, decay, [table])
    for step in range(steps):
        rows = torch.randint(7, (4,), generator=generator)
        values = torch.randn(4, 2, generator=generator, dtype=torch.float64)
        table.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), values, (7, 2))
        lazy.begin_step()
        kept.begin_step()
        with torch.no_grad():
            table[rows.unique()] += torch.randn(2, generator=generator, dtype=torch.float64)
            other.add_(1.0)
        lazy.update(step)
        kept.update(step)
        plain.update(step)
        if step in looks:
            # As in a checkpoint: what waits goes on waiting.
            state = {kind: {name: one.clone() for name, one in held.items()} for kind, held in kept.state().items()}
            kept = AveragedWeights(current, decay, [table])
            kept.restore(state)
            torch.testing.assert_close(lazy.tensors["table"], plain.tensors["table"], rtol=1e-9, atol=1e-9)
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(lazy.tensors[name], tensor, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(kept.tensors[name], tensor, rtol=1e-9, atol=1e-9)


def test_a_table_with_a_dense_gradient_waits_for_no_row():
    table = nn.Parameter(torch.zeros(3, 1))
    averages = AveragedWeights({"table": table}, 0.5, [table])
    for step in range(3):
        table.grad = torch.ones(3, 1)
        averages.begin_step()
        with torch.no_grad():
            table.add_(1.0)
        averages.update(step)
    expected = AveragedWeights({"table": torch.zeros(3, 1)}, 0.5)
    for step in range(3):
        expected.current["table"].add_(1.0)
        expected.update(step)
    torch.testing.assert_close(averages.tensors["table"], expected.tensors["table"])


def test_counters_are_copied_and_running_statistics_averaged():
    module = nn.BatchNorm1d(2)
    current = module.state_dict(keep_vars=True)
    averages = AveragedWeights(current, 0.5)
    module.train()
    for step in range(8):
        module(torch.randn(16, 2) + 3)
        averages.update(step)
    assert averages.tensors["num_batches_tracked"] == 8
    assert (averages.tensors["running_mean"] > 0).all()
    assert (averages.tensors["running_mean"] < module.running_mean).all()


@pytest.mark.parametrize("fails", [False, True])
def test_the_averages_are_in_use_within_the_context_alone(fails):
    module = nn.Linear(2, 2)
    averages = AveragedWeights(dict(module.named_parameters()), 0.9)
    with torch.no_grad():
        module.weight += 1
    averages.update(0)
    own, mean = module.weight.detach().clone(), averages.tensors["weight"].clone()
    seen = []

    def use():
        with averages.in_use():
            seen.append(module.weight.detach().clone())
            assert torch.equal(averages.tensors["weight"], mean)
            if fails:
                raise KeyError

    if fails:
        with pytest.raises(KeyError):
            use()
    else:
        use()
    assert torch.equal(seen[0], mean)
    assert torch.equal(module.weight, own)
    assert torch.equal(averages.tensors["weight"], mean)
    assert not torch.equal(own, mean)


def test_a_checkpoint_without_an_average_takes_the_current_value():
    current = {"a": torch.ones(2), "b": torch.ones(2)}
    averages = AveragedWeights(current, 0.9)
    current["b"].fill_(5)
    averages.restore({"average": {"a": torch.full((2,), 3.0)}, "settled": {}})
    assert averages.tensors["a"].tolist() == [3, 3]
    assert averages.tensors["b"].tolist() == [5, 5]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=4), st.integers(1, 20))
def test_an_exchange_in_parts_swaps_every_bit_and_moves_no_tensor(shapes, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(averaging, "AT_ONCE", at_once)
        ones = {str(index): nn.Parameter(torch.randn(shape)) for index, shape in enumerate(shapes)}
        ones["counter"] = torch.tensor(7)
        others = {name: torch.full_like(one, -3).detach() for name, one in ones.items()}
        before, places = {name: one.detach().clone() for name, one in ones.items()}, {}
        places = {name: one.data_ptr() for name, one in ones.items()}
        exchange(ones, others)
        for name, one in ones.items():
            assert torch.equal(others[name], before[name])
            assert (one == -3).all()
            assert one.data_ptr() == places[name]


def test_rows_that_are_made_good_in_parts_are_the_same_to_the_last_bit(monkeypatch):
    found = []
    for at_once in (averaging.AT_ONCE, 6):
        monkeypatch.setattr(averaging, "AT_ONCE", at_once)
        generator = torch.Generator().manual_seed(3)
        table = nn.Parameter(torch.randn(301, 3, generator=generator))
        averages = AveragedWeights({"table": table}, 0.9, [table])
        for step in range(20):
            rows = torch.randint(301, (40,), generator=generator).unique()
            values = torch.randn(len(rows), 3, generator=generator)
            table.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), values, table.shape).coalesce()
            averages.begin_step()
            with torch.no_grad():
                table[rows] += values
            averages.update(step)
        found.append(averages.tensors["table"].clone())
    assert torch.equal(*found)
