"""The loop learns, stops, and goes on after a kill with the very numbers of an undisturbed run."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from recdistill.errors import InputError
from recdistill.training import fit as fit_module
from recdistill.training.checkpoint import read_checkpoint, write_checkpoint
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.fit import CheckpointClock, TrainingPlan, fit, random_states, restore_random_states
from recdistill.training.gradients import SummedGradients


class KilledError(Exception):
    pass


def make_plan(kill_at=None, validate=True, device="cpu", **changes):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)).to(device)
    parameters = dict(module.named_parameters())
    data = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)).to(device)
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
        return {"total": memory["scale"].to(device) * (module(batch).squeeze(1) - batch.sum(1)).square().mean()}

    def measure():
        with torch.no_grad():
            return {"val/ndcg_at_10": -float((module(data).squeeze(1) - data.sum(1)).square().mean())}

    options = dict(epochs=6, patience=6, checkpoint_seconds=0.0, checkpoint_spacing=0.0) | changes
    return TrainingPlan(
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


def is_reproducible(name):
    return not name.startswith("system/") and "second" not in name


def reproducible(logged):
    return [
        (epoch, {name: value for name, value in metrics.items() if is_reproducible(name)}) for metrics, epoch in logged
    ]


AVERAGED = {"ema_decay": 0.9, "smoothing": 2, "least_epochs": 3, "patience": 2}


@pytest.mark.parametrize("kill_at", [1, 2, 5, 6, 13, 30])
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.5}, AVERAGED | {"patience": 6}, {"patience": 0}])
def test_killed_training_ends_as_an_undisturbed_one(tmp_path, kill_at, validate, options):
    whole, resumed = [], []
    expected = make_plan(validate=validate, **options)
    fit(expected, tmp_path / "whole", lambda metrics, epoch: whole.append((dict(metrics), epoch)))
    with pytest.raises(KilledError):
        fit(make_plan(kill_at, validate, **options), tmp_path / "killed", lambda metrics, epoch: None)
    torch.manual_seed(99)
    plan = make_plan(validate=validate, **options)
    fit(plan, tmp_path / "killed", lambda metrics, epoch: resumed.append((dict(metrics), epoch)))
    assert reproducible(resumed) == reproducible(whole)
    assert len(whole) == 6
    for name, tensor in expected.parameters.items():
        assert torch.equal(tensor, plan.parameters[name])


def test_best_weights_are_kept_and_patience_stops(tmp_path):
    plan = make_plan()
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.9])
    seen = []

    def validate():
        seen.append({name: tensor.detach().clone() for name, tensor in plan.parameters.items()})
        return {"val/ndcg_at_10": next(scores)}

    object.__setattr__(plan, "validate", validate)
    object.__setattr__(plan, "patience", 2)
    progress = fit(plan, tmp_path / "c", lambda metrics, epoch: None)
    assert (progress.best_epoch, progress.best, len(seen)) == (1, 0.3, 4)
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in plan.parameters.items())


def plain_epochs(plan):
    """The states after each step of an unadorned loop: no averages, no choice of an epoch; gives (epoch, weights)."""
    steps, total = 0, plan.epochs * plan.num_batches
    for epoch in range(plan.epochs):
        plan.module.eval()
        plan.begin_epoch(epoch)
        plan.module.train()
        for batch in plan.batches(epoch):
            for group in plan.optimizer.param_groups:
                group["lr"] = 0.05 * plan.learning_rate(steps, total)
            plan.step(batch)["total"].backward()
            plan.optimizer.step()
            plan.optimizer.zero_grad()
            steps += 1
            yield epoch, {name: tensor.detach().clone() for name, tensor in plan.parameters.items()}


def test_without_averages_it_is_the_plain_loop_to_the_last_bit(tmp_path):
    plan, plain = make_plan(), make_plan()
    after = dict(plain_epochs(plain))
    torch.manual_seed(0)
    make_plan()
    progress = fit(plan, tmp_path / "c", lambda metrics, epoch: None)
    assert all(torch.equal(tensor, after[progress.best_epoch][name]) for name, tensor in plan.parameters.items())


@pytest.mark.parametrize("validate", [True, False])
def test_averages_are_validated_and_kept_and_change_nothing_that_is_trained(tmp_path, validate):
    plan, plain = make_plan(validate=validate, ema_decay=0.8), make_plan()
    average = {name: tensor.detach().clone() for name, tensor in plain.parameters.items()}
    averages = {}
    for step, (epoch, weights) in enumerate(plain_epochs(plain)):
        kept = min(0.8, (1 + step) / (10 + step))
        average = {name: kept * average[name] + (1 - kept) * tensor for name, tensor in weights.items()}
        averages[epoch] = average
    torch.manual_seed(0)
    make_plan()
    seen, measure = [], plan.validate

    def validate_and_look():
        seen.append({name: tensor.detach().clone() for name, tensor in plan.parameters.items()})
        return measure()

    if validate:
        object.__setattr__(plan, "validate", validate_and_look)
    progress = fit(plan, tmp_path / "c", lambda metrics, epoch: None)
    for epoch, found in enumerate(seen):
        for name, tensor in averages[epoch].items():
            torch.testing.assert_close(found[name], tensor)
    for name, tensor in averages[progress.best_epoch if validate else 5].items():
        torch.testing.assert_close(plan.parameters[name], tensor)
    assert len(seen) == (6 if validate else 0)


def test_the_smoothed_metric_is_logged_where_there_is_one(tmp_path):
    logged = metrics_of(make_plan(smoothing=3), tmp_path / "c")
    raw = [one["val/ndcg_at_10"] for one in logged]
    assert [one["val/ndcg_at_10_smoothed"] for one in logged] == pytest.approx(
        [sum(raw[max(0, i - 2) : i + 1]) / min(3, i + 1) for i in range(6)]
    )
    assert "val/ndcg_at_10_smoothed" not in metrics_of(make_plan(), tmp_path / "d")[0]


def test_loss_that_is_not_finite_is_an_input_error(tmp_path):
    plan = make_plan()
    object.__setattr__(plan, "step", lambda batch: {"total": plan.parameters["0.bias"].sum() * math.nan})
    with pytest.raises(InputError, match="learning rate"):
        fit(plan, tmp_path / "c", lambda metrics, epoch: None)


def test_losses_that_are_looked_at_now_and_then_are_the_same(tmp_path, monkeypatch):
    every_step = metrics_of(make_plan(clip=0.5), tmp_path / "c")
    monkeypatch.setattr(fit_module, "steps_between_looks", lambda devices: 3)
    now_and_then = metrics_of(make_plan(clip=0.5), tmp_path / "d")
    for first, second in zip(every_step, now_and_then, strict=True):
        for name in ("train/total", "train/gradient_norm", "val/ndcg_at_10"):
            assert second[name] == pytest.approx(first[name], rel=1e-12)


def test_what_is_not_finite_is_found_before_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "steps_between_looks", lambda devices: 10**6)
    plan = make_plan()
    object.__setattr__(plan, "step", lambda batch: {"total": plan.parameters["0.bias"].sum() * math.nan})
    with pytest.raises(InputError, match="learning rate"):
        fit(plan, tmp_path / "c", lambda metrics, epoch: None)
    assert not (tmp_path / "c").exists()


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


def test_tensors_are_written_apart_and_those_that_share_memory_too(tmp_path):
    whole = torch.arange(12.0)
    tensors = {"all": whole, "part": whole[3:7], "again": whole, "turned": whole.view(3, 4).T, "empty": whole[:0]}
    write_checkpoint(tmp_path / "c", tensors, {})
    found = read_checkpoint(tmp_path / "c")[0]
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_checkpoint_that_takes_long_is_written_again_after_a_multiple_of_it(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(fit_module.time, "perf_counter", lambda: now[0])
    clock = CheckpointClock(20.0, 100.0)
    assert not clock.due(130.0, 30.0)
    assert clock.due(130.1, 30.0)
    now[0] = 131.0

    def save():
        now[0] += 4

    clock.write(save)
    assert (clock.saved, clock.took) == (135.0, 4.0)
    assert not clock.due(214.9, 30.0)
    assert clock.due(215.0, 30.0)
    # Where it costs nothing the seconds alone count.
    clock.took = 0.0
    assert not clock.due(165.0, 30.0)
    assert clock.due(165.1, 30.0)


@pytest.mark.parametrize(("spacing", "written"), [(0.0, 6), (20.0, 2), (9.5, 3)])
def test_costly_checkpoints_are_left_out_but_for_the_last(tmp_path, monkeypatch, spacing, written):
    """An epoch takes 5 seconds of the clock, a checkpoint 2: after the first rests of 0, 40 and 19 seconds."""
    now, saved = [0.0], []
    monkeypatch.setattr(fit_module.time, "perf_counter", lambda: now[0])
    save = fit_module.save

    def slow_save(plan, progress, *others):
        now[0] += 2
        saved.append(progress.epoch)
        save(plan, progress, *others)

    monkeypatch.setattr(fit_module, "save", slow_save)
    plan = make_plan(checkpoint_seconds=1e9, checkpoint_spacing=spacing)
    step = plan.step

    def slow_step(batch):
        now[0] += 1
        return step(batch)

    object.__setattr__(plan, "step", slow_step)
    fit(plan, tmp_path / "c", lambda metrics, epoch: None)
    assert len(saved) == written
    assert (saved[0], saved[-1]) == (1, 6)


@pytest.mark.parametrize("kill_at", [7, 18, 29])
def test_a_training_whose_checkpoints_lie_far_apart_is_gone_on_from(tmp_path, kill_at):
    """After the first epoch's none is written: it goes on from there."""
    changes = {"ema_decay": 0.5, "checkpoint_seconds": 1e9, "checkpoint_spacing": 1e9}
    expected = make_plan(**changes)
    fit(expected, tmp_path / "whole", lambda metrics, epoch: None)
    with pytest.raises(KilledError):
        fit(make_plan(kill_at, **changes), tmp_path / "c", lambda metrics, epoch: None)
    assert read_checkpoint(tmp_path / "c")[1]["epoch"] == 1
    torch.manual_seed(99)
    plan = make_plan(**changes)
    assert len(metrics_of(plan, tmp_path / "c")) == 6
    assert all(torch.equal(tensor, plan.parameters[name]) for name, tensor in expected.parameters.items())


def test_a_validation_that_fails_leaves_the_weights_of_the_training(tmp_path):
    plan, plain = make_plan(ema_decay=0.8), make_plan()
    after = [weights for epoch, weights in plain_epochs(plain) if epoch == 0][-1]
    torch.manual_seed(0)
    make_plan()

    def validate():
        assert not torch.equal(plan.parameters["0.weight"], after["0.weight"])
        raise KilledError

    object.__setattr__(plan, "validate", validate)
    with pytest.raises(KilledError):
        fit(plan, tmp_path / "c", lambda metrics, epoch: None)
    assert all(torch.equal(tensor, after[name]) for name, tensor in plan.parameters.items())


MEMORY = """
import sys, torch
from pathlib import Path
from torch import nn
from recdistill.training import resources
from recdistill.training.fit import TrainingPlan, fit
from recdistill.training.row_adam import RowAdam

table = nn.Embedding(400_000, 64, sparse=True)
before = resources.peak_resident()
plan = TrainingPlan(
    parameters={"table": table.weight}, optimizer=RowAdam([table.weight], lr=0.1), num_batches=5, module=table,
    batches=lambda epoch: torch.arange(400_000).split(80_000),
    step=lambda rows: {"total": table(rows[::4]).square().sum()},
    epochs=2, validate=lambda: {"val/ndcg_at_10": 0.0}, ema_decay=0.9, row_sparse=[table.weight],
    checkpoint_spacing=0.0,
)
fit(plan, Path(sys.argv[1]), lambda metrics, epoch: None)
Path(sys.argv[1]).unlink()
print((resources.peak_resident() - before) / table.weight.nbytes)
"""


def test_training_holds_a_table_five_times_and_no_copy_beside_them(tmp_path):
    """The weights were there; moments (2), averages and the best weights are added, and part of a batch's rows."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "c")]
    added = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # Copies for the checkpoint and the validation would be five more; what PyTorch loads is half a table.
    assert 3.5 < added < 6.5


def metrics_of(plan, path):
    logged = []
    fit(plan, path, lambda metrics, epoch: logged.append(dict(metrics)))
    return logged


@pytest.mark.parametrize(("clip", "every", "norms"), [(0.1, 10, [10, 10]), (0.0, 1, [10, 10]), (0.0, 3, [5, 10])])
def test_the_gradients_norm_is_a_mean_over_steps_from_before_clipping(tmp_path, monkeypatch, clip, every, norms):
    """Two parameters whose gradients are 3 and 4 times the batch's number: a norm of 5 times it.

    Of the steps 0 1 | 2 3, every third and each epoch's first are 0 | 2 3.
    """
    monkeypatch.setattr(fit_module, "NORM_EVERY", every)
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    clipped = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            clipped.append(math.hypot(float(first.grad), float(second.grad)))
            return super().step(closure)

    plan = TrainingPlan(
        parameters={"first": first, "second": second},
        optimizer=Watched([{"params": [first]}, {"params": [second]}], lr=0.1),
        batches=lambda epoch: [torch.tensor([1.0]), torch.tensor([3.0])],
        step=lambda batch: {"total": (batch * (3 * first + 4 * second)).sum()},
        num_batches=2,
        module=nn.Identity(),
        epochs=2,
        clip=clip,
    )
    assert [one["train/gradient_norm"] for one in metrics_of(plan, tmp_path / "c")] == pytest.approx(norms)
    assert clipped == pytest.approx([0.1] * 4 if clip else [5.0, 15.0] * 2, rel=1e-3)


def test_throughput_is_of_the_steps_alone_and_in_the_units_of_a_batch(tmp_path, monkeypatch):
    """A step of eight samples takes a second of a clock that stands still otherwise but for a long validation."""
    now = [0.0]
    monkeypatch.setattr(fit_module.time, "perf_counter", lambda: now[0])
    plan = make_plan(checkpoint_seconds=1e9, size=lambda batch: {"samples": len(batch), "tokens": 100})
    step, validate = plan.step, plan.validate

    def slow_step(batch):
        now[0] += 1
        return step(batch)

    def slow_validate():
        now[0] += 50
        return validate()

    object.__setattr__(plan, "step", slow_step)
    object.__setattr__(plan, "validate", slow_validate)
    logged = metrics_of(plan, tmp_path / "c")
    assert [one["train/samples_per_second"] for one in logged] == [8.0] * 6
    assert [one["train/tokens_per_second"] for one in logged] == [100.0] * 6
    assert [one["train/tokens"] for one in logged] == [500.0 * (epoch + 1) for epoch in range(6)]
    assert [one["train/seconds"] for one in logged] == [55.0 * (epoch + 1) for epoch in range(6)]


def test_throughput_counts_all_of_an_epoch_that_was_killed(tmp_path, monkeypatch):
    with pytest.raises(KilledError):
        fit(make_plan(kill_at=4), tmp_path / "c", lambda metrics, epoch: None)
    values = read_checkpoint(tmp_path / "c")[1]
    assert (values["batch"], values["amounts"]) == (3, {"samples": 24})
    seconds = [values["step_seconds"]]
    now = [0.0]
    monkeypatch.setattr(fit_module.time, "perf_counter", lambda: now[0])
    plan = make_plan(epochs=1, checkpoint_seconds=1e9)
    step = plan.step

    def slow_step(batch):
        now[0] += 1
        return step(batch)

    object.__setattr__(plan, "step", slow_step)
    seconds.append(2.0)
    assert metrics_of(plan, tmp_path / "c")[0]["train/samples_per_second"] == pytest.approx(40 / sum(seconds))


def test_every_epoch_says_how_much_memory_the_process_took(tmp_path):
    logged = [one["system/memory_mib"] for one in metrics_of(make_plan(), tmp_path / "c")]
    assert logged == sorted(logged)
    assert 20 < logged[0] < 1e6


def test_the_state_of_each_cuda_device_in_use_is_kept_and_put_back(monkeypatch):
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    states = {first: torch.tensor([1], dtype=torch.uint8), second: torch.tensor([2], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    kept = random_states({torch.device("cpu"), first, second})
    assert sorted(kept) == ["random", "random.cuda:0", "random.cuda:1"]
    restored = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: state}))
    torch.manual_seed(7)
    restore_random_states({second}, kept)
    assert restored == {second: states[second]}
    assert torch.equal(torch.get_rng_state(), kept["random"])


def test_a_checkpoint_without_a_devices_state_is_gone_on_from(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: pytest.fail("there is nothing to restore"))
    kept = random_states({torch.device("cpu")})
    torch.rand(3)
    restore_random_states({torch.device("cuda", 0)}, kept)
    assert torch.equal(torch.get_rng_state(), kept["random"])


class BesideAnother(Processes):
    """The main process of two, without the other one."""

    def gathered(self, item):
        return [item, self.other]

    def told(self, number):
        return number

    def sum_values(self, values):
        return dict(values)

    def align(self, tensors):
        pass


def test_a_checkpoint_keeps_the_random_numbers_of_every_process(tmp_path, monkeypatch):
    # Nobody sums gradients with it.
    unsummed = lambda step, trained, sparse, processes: SummedGradients(step, trained, sparse, ALONE)  # noqa: E731
    monkeypatch.setattr("recdistill.training.fit.SummedGradients", unsummed)
    torch.manual_seed(11)
    BesideAnother.other = {"random": torch.get_rng_state()}
    expected = torch.rand(3)
    with pytest.raises(KilledError):
        fit(make_plan(kill_at=7, processes=BesideAnother(0, 2)), tmp_path / "c", lambda *_: None)
    tensors = read_checkpoint(tmp_path / "c")[0]
    assert not torch.equal(tensors["random"], tensors["process.1.random"])
    restore_random_states(set(), tensors, Processes(1, 2), 7)
    assert torch.equal(torch.rand(3), expected)
    restore_random_states(set(), tensors, Processes(0, 2), 7)
    assert torch.equal(torch.get_rng_state(), tensors["random"])
    # Under a launch of more processes: of its own, and of the step.
    drawn = []
    for index, steps in ((0, 7), (2, 7), (2, 8), (3, 7)):
        restore_random_states(set(), tensors, Processes(index, 4), steps)
        drawn.append(tuple(torch.rand(3).tolist()))
    assert len({*drawn, tuple(expected.tolist())}) == 5


LATER_FIELDS = ("amounts", "step_seconds", "norms", "norm_sum")


def test_a_checkpoint_from_before_throughput_was_counted_is_gone_on_from(tmp_path):
    with pytest.raises(KilledError):
        fit(make_plan(kill_at=13), tmp_path / "c", lambda metrics, epoch: None)
    tensors, values = read_checkpoint(tmp_path / "c")
    write_checkpoint(tmp_path / "c", tensors, {n: v for n, v in values.items() if n not in LATER_FIELDS})
    plan = make_plan()
    assert len(metrics_of(plan, tmp_path / "c")) == 6
    expected = make_plan()
    fit(expected, tmp_path / "whole", lambda metrics, epoch: None)
    assert all(torch.equal(tensor, plan.parameters[name]) for name, tensor in expected.parameters.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kill_at", [2, 13])
def test_killed_training_on_cuda_ends_as_an_undisturbed_one(tmp_path, kill_at):
    """Dropout draws from the device's generator."""
    whole = make_plan(device="cuda")
    fit(whole, tmp_path / "whole", lambda metrics, epoch: None)
    with pytest.raises(KilledError):
        fit(make_plan(kill_at, device="cuda"), tmp_path / "killed", lambda metrics, epoch: None)
    torch.manual_seed(99)
    resumed = make_plan(device="cuda")
    logged = metrics_of(resumed, tmp_path / "killed")
    assert all(torch.equal(tensor, resumed.parameters[name]) for name, tensor in whole.parameters.items())
    assert logged[0]["system/cuda_memory_mib"] > 0
