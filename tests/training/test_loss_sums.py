"""Losses are summed on the device and looked at now and then, and nothing is lost by that."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.training.loss_sums import LOOK_EVERY, LossSums, steps_between_looks

LOSSES = st.lists(
    st.tuples(st.sampled_from([("total",), ("total", "ranking"), ("ranking", "total")]), st.integers(0, 1 << 20)),
    min_size=1,
    max_size=20,
)


@given(steps=LOSSES, looks=st.sets(st.integers(0, 19)), share=st.sampled_from([1.0, 0.5, 0.25]))
def test_the_sums_are_those_of_the_losses_however_often_they_are_taken(steps, looks, share):
    sums, found, expected = LossSums(), {}, {}
    for number, (names, value) in enumerate(steps):
        sums.add({name: torch.tensor(float(value + place)) for place, name in enumerate(names)}, share)
        for place, name in enumerate(names):
            expected[name] = expected.get(name, 0.0) + share * (value + place)
        if number in looks or number == len(steps) - 1:
            for name, total in sums.take().items():
                found[name] = found.get(name, 0.0) + total
    assert found == expected
    assert sums.take() == {}


def test_a_loss_of_half_precision_is_summed_in_double():
    sums = LossSums()
    for _ in range(4096):
        sums.add({"total": torch.tensor(1.0, dtype=torch.bfloat16, requires_grad=True)})
    assert sums.take() == {"total": 4096.0}


@pytest.mark.parametrize(
    ("devices", "steps"), [(["cpu"], 1), ([], 1), (["cuda:0"], LOOK_EVERY), (["cpu", "cuda:0"], LOOK_EVERY)]
)
def test_a_gpu_is_waited_for_every_so_many_steps(devices, steps):
    assert steps_between_looks({torch.device(name) for name in devices}) == steps
