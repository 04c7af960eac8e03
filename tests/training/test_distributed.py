"""The bookkeeping of several processes, without any; `tests/steps/test_launch.py` starts some."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st
from tiny_llm import tiny_model
from torch.distributed.tensor import DTensor

from recdistill.errors import InputError
from recdistill.training.distributed import ALONE, Processes, SpacedDecision, groups_of, join, shard_layers


@given(st.integers(0, 20), st.integers(1, 7))
def test_groups_are_the_items_in_order(count: int, size: int) -> None:
    groups = list(groups_of(range(count), size))
    assert [item for group in groups for item in group] == list(range(count))
    assert all(len(group) == size for group in groups[:-1])
    assert all(groups)


@given(st.integers(0, 20), st.integers(1, 5), st.booleans())
def test_works_are_shared_out_once_each(works: int, count: int, sharded: bool) -> None:
    shares = [list(Processes(index, count, sharded=sharded).share_out(range(works))) for index in range(count)]
    wanted = [work for share in shares for work, asked_for in share if asked_for]
    assert sorted(wanted) == list(range(works))
    if sharded:
        # A sharded base needs every process as often as any other.
        assert len({len(share) for share in shares}) == 1
    else:
        assert all(asked_for for share in shares for _, asked_for in share)


def test_one_process_alone_does_everything_itself() -> None:
    assert join(torch.device("cpu")) == ALONE
    parameter = torch.nn.Parameter(torch.ones(2))
    gradient = torch.tensor([1.0, 2.0])
    ALONE.align([parameter])
    ALONE.wait()
    assert ALONE.sum(gradient) is gradient
    assert ALONE.sum_rows(gradient) is gradient
    assert ALONE.sum_values({"a": 0.1}) == {"a": 0.1}
    assert (ALONE.from_main(lambda: "made"), ALONE.main_first(lambda: "made")) == ("made", "made")
    with pytest.raises(InputError, match="as it is"):
        ALONE.from_main(lambda: (_ for _ in ()).throw(InputError("as it is")))


def test_the_main_process_keeps_its_random_numbers_and_no_other_has_them() -> None:
    drawn = []
    for index in (0, 1, 2):
        torch.manual_seed(5)
        Processes(index, 3).seed_apart(0)
        drawn.append(torch.rand(3))
    torch.manual_seed(5)
    assert torch.equal(drawn[0], torch.rand(3))
    assert len({tuple(one.tolist()) for one in drawn}) == 3


def test_a_model_that_names_no_layers_is_not_sharded() -> None:
    with pytest.raises(InputError, match="--use_fsdp: Linear does not name its layers"):
        shard_layers(torch.nn.Linear(2, 2), "cpu", 1)


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    yield
    torch.distributed.destroy_process_group()


def test_a_sharded_model_computes_as_before_its_layers_divided(group: None) -> None:
    tokens = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = tiny_model()(tokens).logits
    model = tiny_model().requires_grad_(False)
    shard_layers(model, "cpu", 1)
    divided = {name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)}
    assert divided == {name for name, _ in model.named_parameters() if ".layers." in name}
    assert len(divided) > 10
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, expected)


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(("step_seconds", "most", "waited"), [(0.001, 60, 50), (0.25, 400, 4), (3.0, 1500, 1)])
def test_a_decision_is_told_about_once_a_second(
    step_seconds: float, most: int, waited: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes know it after the same steps, and no step that takes long passes without."""
    clock, told = Clock(), []
    monkeypatch.setattr("recdistill.training.distributed.time", clock)
    main, other = Processes(0, 2), Processes(1, 2)

    def tell(processes: Processes, number: float) -> float:
        # The main process asks first; the other is told the same.
        if processes.is_main:
            told.append(number)
        return told[-1]

    monkeypatch.setattr(Processes, "told", tell)
    deciders = [SpacedDecision(one) for one in (main, other)]
    steps = 1500
    found: list[list[int]] = [[], []]
    for step in range(steps):
        clock.now += step_seconds
        # The other process's own clock says nothing.
        for one, (decider, due) in enumerate(zip(deciders, (step >= 700, False), strict=True)):
            if decider.agreed(due):
                found[one].append(step)
    assert found[0] == found[1]
    assert 700 <= found[0][0] < 700 + waited
    assert len(told) <= most


def test_one_process_alone_decides_after_each_step() -> None:
    decision = SpacedDecision(ALONE)
    assert [decision.agreed(one) for one in (True, False, True)] == [True, False, True]
