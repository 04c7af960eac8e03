"""The loop learns, stops, and goes on after a kill with the very numbers of an undisturbed run."""

import math

import pytest
import torch
from torch import nn

from recdistill.errors import InputError
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint
from recdistill.training.fit import Recipe, fit


class KilledError(Exception):
    pass


def make_recipe(kill_at=None, validate=True, **changes):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    parameters = dict(module.named_parameters())
    data = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    memory = {}
    calls = []

    def batches(epoch):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(epoch))
        return (data[part] for part in order.split(8))

    def begin_epoch(epoch):
        if epoch % 2 == 0:
            memory["scale"] = torch.rand(1)
        return {"train/scale": float(memory["scale"])}

    def step(batch):
        calls.append(1)
        if kill_at is not None and len(calls) == kill_at:
            raise KilledError
        return {"total": memory["scale"] * (module(batch).squeeze(1) - batch.sum(1)).square().mean()}

    def measure():
        with torch.no_grad():
            return {"val/ndcg_at_10": -float((module(data).squeeze(1) - data.sum(1)).square().mean())}

    options = dict(epochs=6, patience=6, checkpoint_seconds=0.0) | changes
    return Recipe(
        parameters=parameters,
        optimizer=torch.optim.Adam(module.parameters(), lr=0.05),
        batches=batches,
        step=step,
        num_batches=5,
        module=module,
        validate=measure if validate else None,
        begin_epoch=begin_epoch,
        memory=memory,
        learning_rate=lambda done, total: 1 - done / total,
        **options,
    )


def without_seconds(logged):
    return [
        (epoch, {name: value for name, value in metrics.items() if "seconds" not in name}) for metrics, epoch in logged
    ]


@pytest.mark.parametrize("kill_at", [1, 2, 5, 6, 13, 30])
@pytest.mark.parametrize("validate", [True, False])
def test_killed_training_ends_as_an_undisturbed_one(tmp_path, kill_at, validate):
    whole, resumed = [], []
    expected = make_recipe(validate=validate)
    fit(expected, tmp_path / "whole", lambda metrics, epoch: whole.append((dict(metrics), epoch)))
    with pytest.raises(KilledError):
        fit(make_recipe(kill_at, validate), tmp_path / "killed", lambda metrics, epoch: None)
    torch.manual_seed(99)
    recipe = make_recipe(validate=validate)
    fit(recipe, tmp_path / "killed", lambda metrics, epoch: resumed.append((dict(metrics), epoch)))
    assert without_seconds(resumed) == without_seconds(whole)
    assert len(whole) == 6
    for name, tensor in expected.parameters.items():
        assert torch.equal(tensor, recipe.parameters[name])


def test_best_weights_are_kept_and_patience_stops(tmp_path):
    recipe = make_recipe()
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.9])
    seen = []

    def validate():
        seen.append({name: tensor.detach().clone() for name, tensor in recipe.parameters.items()})
        return {"val/ndcg_at_10": next(scores)}

    object.__setattr__(recipe, "validate", validate)
    object.__setattr__(recipe, "patience", 2)
    progress = fit(recipe, tmp_path / "c", lambda metrics, epoch: None)
    assert (progress.best_epoch, progress.best, len(seen)) == (1, 0.3, 4)
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in recipe.parameters.items())


def test_loss_that_is_not_finite_is_an_input_error(tmp_path):
    recipe = make_recipe()
    object.__setattr__(recipe, "step", lambda batch: {"total": recipe.parameters["0.bias"].sum() * math.nan})
    with pytest.raises(InputError, match="learning rate"):
        fit(recipe, tmp_path / "c", lambda metrics, epoch: None)


def test_damaged_checkpoint_is_no_checkpoint(tmp_path):
    path = tmp_path / "c"
    assert read_checkpoint(path) is None
    write_checkpoint(path, {"a": torch.ones(2)}, {"b": 1})
    tensors, values = read_checkpoint(path)
    assert torch.equal(tensors["a"], torch.ones(2))
    assert values == {"b": 1}
    path.write_bytes(path.read_bytes()[:-3])
    assert read_checkpoint(path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["c"]
