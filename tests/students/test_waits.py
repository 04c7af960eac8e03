"""A training step reads nothing back from its device, and waits for no copy to it; a look at the losses alone does.

Where its batch is cut on the device, nothing of the batch's size is copied, but what is told of below.

There need be no GPU: the device is PyTorch's ``meta``, whose tensors have no values, so that whoever reads one is seen.
"""

import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recdistill.config import DistillConfig, StudentConfig
from recdistill.students import training
from recdistill.students.build import shape_of
from recdistill.training import fit as fitting
from recdistill.training.averaging import AveragedWeights
from recdistill.training.distributed import Processes
from recdistill.training.gradients import SummedGradients
from recdistill.training.loss_sums import LossSums
from recdistill.training.recorder import NoRecorder

META = torch.device("meta")
CANDIDATES = 5
BY_MASK = ("index", "index_put", "index_put_", "_index_put_impl_")
#: Operations whose result, or its size, depends on values: of a number, or of how many there are.
READ = ("_local_scalar_dense", "equal")
BY_VALUE = (*READ, "nonzero", "_coalesce", "masked_select", "_unique2", "unique_dim", "lift_fresh")


class Waits(TorchDispatchMode):
    """Counts what waits for a device, as (operation, place in the package), and the bytes copied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()
        self.copied = 0

    def note(self, name: str) -> None:
        ours = [one for one in traceback.extract_stack() if f"{Path('recdistill')}/" in one.filename]
        ours = [one for one in ours if "/tests/" not in one.filename]
        self.found[name, f"{Path(ours[-1].filename).name} {ours[-1].name}" if ours else "backward"] += 1

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        there = any(isinstance(one, Tensor) and one.device == META for one in tree_leaves((args, kwargs)))
        if name == "_to_copy":
            devices = {args[0].device.type, torch.device(kwargs.get("device") or args[0].device).type}
            if devices == {"cpu", "meta"} and not kwargs.get("non_blocking"):
                self.note("a copy that is waited for")
            if devices == {"cpu", "meta"} and args[0].device.type == "cpu":
                self.copied += args[0].nbytes
        if name == "copy_" and args[0].device == META and args[1].device.type == "cpu":
            self.copied += args[1].nbytes
        if not there:
            return function(*args, **kwargs)
        if name in BY_VALUE:
            self.note(name)
        if name in BY_MASK and any(one is not None and one.dtype == torch.bool for one in args[1]):
            self.note(f"{name} by a mask")
        if name in READ:
            return 1.0 if args[0].is_floating_point() else 1
        if name == "_to_copy" and torch.device(kwargs.get("device") or META).type == "cpu":
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return function(*args, **kwargs)


def waits_of_steps(config, drawn_data, teacher) -> Counter[tuple[str, str]]:
    """What waits in the steps of an epoch on a device, as `fit` does them, without its last look at the losses."""
    return watched_steps(config, drawn_data, teacher)[0]


def watched_steps(config, drawn_data, teacher) -> tuple[Counter[tuple[str, str]], list[tuple[int, int]]]:
    """`waits_of_steps`, and of each step its samples and the bytes that it and drawing its batch copy to the device."""
    processes = Processes(device=META)
    _, plan = training.student_plan(config, drawn_data, shape_of(config), teacher, NoRecorder(), processes=processes)
    for group in plan.optimizer.param_groups:
        # PyTorch's fused Adam, which reads nothing, is not there for this device; the other one reads steps on the CPU.
        group["fused"] = False
    averages = AveragedWeights(plan.parameters, config.ema_decay, plan.row_sparse)
    trained = fitting.trained_by(plan.optimizer)
    step = SummedGradients(plan.step, trained, plan.row_sparse, plan.processes)
    plan.module.train()
    sums, waits, copied = LossSums(), Waits(), []
    batches, number = iter(plan.batches(0)), -1
    while True:
        waits.copied = 0
        with waits:
            batch = next(batches, None)
            if batch is None:
                break
            number += 1
            fitting.backward(plan, step, batch, 1.0, sums)
            step.sum_sparse()
            fitting.gradient_norm(trained, plan.clip, measure=True)
            averages.begin_step()
            plan.optimizer.step()
            plan.optimizer.zero_grad(set_to_none=True)
            averages.update(number)
        copied.append((len(batch), waits.copied))
    assert number > 1
    assert not any(parameter.grad is not None for parameter in trained)
    return waits.found, copied


SIZES = {"hidden_size": 16, "batch_size": 64, "negatives": 13}


@pytest.mark.parametrize("base_loss", ["ce", "bce", "sampled", "gbce"])
@pytest.mark.parametrize("student", ["sasrec", "gru4rec", "caser", "esasrec"])
def test_no_step_of_a_student_waits(drawn_data, student, base_loss):
    config = StudentConfig(student=student, base_loss=base_loss, **SIZES)
    assert waits_of_steps(config, drawn_data, None) == {}


# Of bce the random numbers that negatives come from, which are the same on every device.
@pytest.mark.parametrize(("base_loss", "bytes_a_sample"), [("ce", 0), ("bce", 8)])
@pytest.mark.parametrize("student", ["sasrec", "gru4rec", "caser", "esasrec"])
def test_what_is_cut_on_the_device_is_not_copied(drawn_data, student, base_loss, bytes_a_sample, monkeypatch):
    """But for an epoch's plan, with its first batch."""
    monkeypatch.setattr("recdistill.data.batches.STRETCH", 2 * SIZES["batch_size"])
    config = StudentConfig(student=student, base_loss=base_loss, **SIZES)
    _, ((_, plan), *copied) = watched_steps(config, drawn_data, None)
    assert len(copied) > 2
    assert plan > 0
    assert [size for _, size in copied] == [bytes_a_sample * samples for samples, _ in copied]


def test_what_is_cut_on_the_cpu_is_copied(drawn_data):
    """As where the test above would fail: under drawn negatives the CPU finds the rows in use."""
    _, copied = watched_steps(StudentConfig(base_loss="sampled", **SIZES), drawn_data, None)
    assert all(size > 8 * samples for samples, size in copied)


@pytest.mark.parametrize("all_distilled", [True, False])
def test_of_a_teachers_answers_only_their_rows_are_copied(drawn_data, drawn_answers, all_distilled):
    """Those of the distilled samples, which blocks need on the CPU, too, where they are not all; and K weights."""
    config = DistillConfig(candidate_topk=CANDIDATES, **SIZES)
    if all_distilled:
        drawn_answers = replace(drawn_answers, covered=torch.ones_like(drawn_answers.covered))
    found, (_, *copied) = watched_steps(config, drawn_data, drawn_answers)
    assert found == {}
    for samples, size in copied:
        rows = (size - 8 * CANDIDATES) // 8
        assert rows == 0 if all_distilled else samples // 4 < rows < samples


@pytest.mark.parametrize("base_loss", ["sampled", "gbce"])
def test_no_step_over_an_own_output_waits(drawn_data, base_loss):
    assert waits_of_steps(StudentConfig(output="linear", base_loss=base_loss, **SIZES), drawn_data, None) == {}


DISTILLED = [
    {"base_loss": "ce"},
    {"base_loss": "bce"},
    {"base_loss": "sampled"},
    {"base_loss": "gbce"},
    {"base_loss": "ce", "alpha": 0.1},
    {"base_loss": "bce", "alpha": 0.1},
    {"base_loss": "sampled", "alpha": 0.1},
    {"base_loss": "gbce", "alpha": 0.1},
    {"base_loss": "ce", "ranking_loss": "kl"},
    {"base_loss": "sampled", "ranking_loss": "kl"},
    {"base_loss": "ce", "mask_untrained": False},
]


@pytest.mark.parametrize("options", DISTILLED, ids=str)
def test_no_step_of_a_distilled_student_waits(drawn_data, drawn_answers, options):
    config = DistillConfig(candidate_topk=CANDIDATES, **options, **SIZES)
    assert waits_of_steps(config, drawn_data, drawn_answers) == {}


def test_no_step_waits_whose_loss_takes_several_blocks(drawn_data, drawn_answers, monkeypatch):
    monkeypatch.setattr("recdistill.distillation.blockwise.block_rows", lambda *_: 10)
    config = DistillConfig(candidate_topk=CANDIDATES, **SIZES)
    assert waits_of_steps(config, drawn_data, drawn_answers) == {}


def test_what_waits_is_counted():
    waits, values = Waits(), torch.zeros(3, device=META)
    with waits:
        float(values.sum())
        values[values > 0] = 1
        torch.equal(values, values)
        torch.zeros(3).to(META)
        torch.zeros(3).to(META, non_blocking=True)
    assert {name for name, _ in waits.found} == {
        "_local_scalar_dense",
        "index_put_ by a mask",
        "equal",
        "a copy that is waited for",
    }
