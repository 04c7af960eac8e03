"""Several batches a step have the gradient of one batch of all their samples."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recdistill.training.fit import TrainingPlan, backward, fit, trained_by
from recdistill.training.gradients import SummedGradients
from recdistill.training.loss_sums import LossSums


class KilledError(Exception):
    pass


def plan_of(sizes: list[int], accumulation: int, kill_at: int = -1, **changes) -> TrainingPlan:
    """A regression on 24 points an epoch, cut into batches of these sizes."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    inputs = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    calls = []

    def batches(epoch: int) -> Iterator[Tensor]:
        return iter(inputs.roll(epoch, dims=0).split(sizes))

    def step(batch: Tensor) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == kill_at:
            raise KilledError
        return {"total": (module(batch).squeeze(1) - batch.sum(1)).square().mean()}

    return TrainingPlan(
        parameters=dict(module.named_parameters()),
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
        batches=batches,
        step=step,
        num_batches=len(sizes),
        module=module,
        accumulation=accumulation,
        **({"epochs": 3, "clip": 0.5, "checkpoint_seconds": 0.0, "checkpoint_spacing": 0.0} | changes),
    )


def trained(plan: TrainingPlan, path: Path) -> tuple[list[Tensor], list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
    fit(plan, path, lambda metrics, epoch: logged.append(dict(metrics)))
    return [tensor.detach() for tensor in plan.parameters.values()], logged


@pytest.mark.parametrize(
    ("sizes", "accumulation", "whole"),
    [([4] * 6, 2, [8] * 3), ([8] * 3, 3, [24]), ([1, 7, 6, 2, 8], 2, [8, 8, 8]), ([10, 2, 5, 7], 3, [17, 7])],
)
def test_batches_of_a_step_are_one_large_batch(
    sizes: list[int], accumulation: int, whole: list[int], tmp_path: Path
) -> None:
    rates: list[list[tuple[int, int]]] = [[], []]

    def rate(into: list[tuple[int, int]]):
        def at(done: int, total: int) -> float:
            into.append((done, total))
            return 1 - done / total

        return at

    small, small_logged = trained(plan_of(sizes, accumulation, learning_rate=rate(rates[0])), tmp_path / "small")
    large, large_logged = trained(plan_of(whole, 1, learning_rate=rate(rates[1])), tmp_path / "large")
    torch.testing.assert_close(small, large, atol=1e-6, rtol=1e-5)
    assert rates[0] == rates[1]
    # The curve is a mean over batches, whose sizes differ.
    if len(set(sizes)) == 1:
        for one, other in zip(small_logged, large_logged, strict=True):
            assert one["train/total"] == pytest.approx(other["train/total"], rel=1e-5)
    assert [one["train/gradient_norm"] > 0 for one in small_logged] == [True] * 3


@pytest.mark.parametrize("kill_at", [1, 3, 4, 8, 12])
def test_killed_between_the_batches_of_a_step_it_ends_as_undisturbed(tmp_path: Path, kill_at: int) -> None:
    sizes = [4, 4, 8, 2, 6]
    expected, logged = trained(plan_of(sizes, 2), tmp_path / "whole")
    with pytest.raises(KilledError):
        trained(plan_of(sizes, 2, kill_at), tmp_path / "killed")
    found, resumed = trained(plan_of(sizes, 2), tmp_path / "killed")
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert [one["train/total"] for one in resumed] == [one["train/total"] for one in logged]


def test_a_batch_counts_by_its_weight() -> None:
    plan = plan_of([24], 1)
    (batch,) = plan.batches(0)
    gradients = []
    for weight in (1.0, 0.25):
        plan.optimizer.zero_grad()
        step = SummedGradients(plan.step, trained_by(plan.optimizer), [], plan.processes)
        sums = LossSums()
        backward(plan, step, batch, weight, sums)
        gradients.append(torch.cat([tensor.grad.flatten() for tensor in plan.parameters.values()]))
    torch.testing.assert_close(gradients[1], gradients[0] / 4)
    assert sums.take()["total"] == pytest.approx(float(plan.step(batch)["total"].detach()))
