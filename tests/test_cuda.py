"""On a CUDA device as on the CPU: steps, distillation, trainings that are killed, averages, teachers and rankings.

Each test has a device: ``cuda``, skipped where there is none, and ``cpu``, so that it is known to run.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_teachers import OPTIONS, small, small_backbone
from tiny_llm import write_tiny_llm

from recdistill.config import DistillConfig, StudentConfig, TeacherConfig
from recdistill.data.batches import Batch
from recdistill.data.sequences import SequenceData
from recdistill.distillation.objective import build_objective
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.students import training
from recdistill.students.build import build_student, shape_of
from recdistill.students.measure import ranks_of
from recdistill.students.together import train_together
from recdistill.teachers.training import train_teacher
from recdistill.testing.teachers import small_data
from recdistill.training import fit as fitting
from recdistill.training.averaging import AveragedWeights
from recdistill.training.distributed import Processes
from recdistill.training.recorder import NoRecorder

#: `benchmarks/gpu.sh` runs these on the CPU, too, to show that the script works where no GPU is.
DEVICES = [
    pytest.param(
        "cuda",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")],
    ),
    "cpu",
]
LOSSES = ["ce", "bce", "sampled", "gbce"]


def step_on(data: SequenceData, device: str, **options) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses of the first batch, and parameters after a step, on the CPU."""
    config = StudentConfig(dropout=0.0, hidden_size=16, **options)
    place = torch.device(device)
    torch.manual_seed(0)
    model = build_student(shape_of(config), data.num_items).to(place)
    count = torch.as_tensor(data.item_count)
    objective = build_objective(config, count, state_size=model.state_size, teacher=None).to(place)
    trained = torch.nn.ModuleDict({"student": model, "extra": objective}).train()
    optimizer = training.optimizer_of(config, trained)
    torch.manual_seed(1)
    batch: Batch = next(iter(training.student_batches(config, data, model.causal)(0)))
    losses = training.loss_step(config, data, model, objective, None, place)(batch)
    losses["total"].backward()
    optimizer.step()
    found = {name: one.detach().cpu() for name, one in model.named_parameters()}
    return {name: float(loss) for name, loss in losses.items()}, found


@pytest.fixture(scope="module")
def data() -> SequenceData:
    return small_data()


@pytest.mark.parametrize("base_loss", LOSSES)
@pytest.mark.parametrize("student", ["sasrec", "gru4rec", "caser", "esasrec"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_that_of_the_cpu(data, device, student, base_loss):
    losses, parameters = step_on(data, device, student=student, base_loss=base_loss)
    expected, right = step_on(data, "cpu", student=student, base_loss=base_loss)
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, one in parameters.items():
        # Adam's first step is of the gradient's sign: where that is rounding, it may be the other one.
        assert (one - right[name]).abs().mean() < 2e-4, name


@pytest.mark.parametrize("device", DEVICES)
def test_ranks_are_those_of_the_cpu(data, device):
    torch.manual_seed(0)
    model = build_student(shape_of(StudentConfig(hidden_size=16)), data.num_items).eval()
    expected = ranks_of(model, data.test, True, torch.device("cpu"))
    found = ranks_of(model.to(device), data.test, True, torch.device(device))
    assert (found - expected).abs().max() <= 1


class KilledError(Exception):
    """What a test raises in place of a kill."""


def answers_of(data: SequenceData) -> TeacherAnswers:
    """A teacher of about half the samples."""
    draw, samples = torch.Generator().manual_seed(0), len(data.train)
    covered = torch.rand(samples, generator=draw) < 0.5
    return TeacherAnswers(
        covered=covered,
        ranking=torch.stack([torch.randperm(data.num_items, generator=draw)[:5] for _ in range(samples)]),
        distance=torch.rand(samples, 5, generator=draw),
        item_embedding=torch.randn(data.num_items, 12, generator=draw),
        sample=covered.nonzero().squeeze(1),
    )


def plan_on(data: SequenceData, device: str, taught: bool = True, **options: Any) -> fitting.TrainingPlan[Batch]:
    """The plan of a training of a student without dropout on a device."""
    config = DistillConfig(**{"hidden_size": 16, "dropout": 0.0, "candidate_topk": 5, "batch_size": 16} | options)
    teacher = answers_of(data) if taught else None
    processes = Processes(device=torch.device(device))
    return training.student_plan(config, data, shape_of(config), teacher, NoRecorder(), processes=processes)[1]


def curve_of(plan: fitting.TrainingPlan[Batch], checkpoint: Path, kill_at: int | None = None) -> list[dict[str, float]]:
    """The metrics of each epoch. ``kill_at``: the batch at which it is killed."""
    done, curve = 0, []

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        nonlocal done
        if done == kill_at:
            raise KilledError
        done += 1
        return plan.step(batch)

    given = replace(plan, step=step, checkpoint_seconds=0.0)
    fitting.fit(given, checkpoint, lambda metrics, epoch: curve.append(metrics))
    return curve


def told(curve: list[dict[str, float]]) -> list[float]:
    """Losses and validation of each epoch."""
    names = ("train/total", "train/base", "train/ranking", "train/gradient_norm", "val/ndcg_at_10")
    return [metrics[name] for metrics in curve for name in names]


DISTILLED = [
    {"base_loss": "ce"},
    {"base_loss": "bce"},
    {"base_loss": "sampled", "negatives": 13},
    {"base_loss": "gbce", "negatives": 5},
    {"base_loss": "ce", "alpha": 0.2},
    {"base_loss": "sampled", "alpha": 0.2, "negatives": 13},
    {"base_loss": "gbce", "alpha": 0.2, "negatives": 5},
    {"base_loss": "bce", "alpha": 0.2, "release_compat": True},
    {"base_loss": "ce", "ranking_loss": "kl"},
    {"base_loss": "sampled", "output": "linear", "negatives": 13},
    {"student": "gru4rec", "base_loss": "sampled", "negatives": 13},
]


@pytest.mark.parametrize("options", DISTILLED, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_a_distilled_step_is_that_of_the_cpu(data, device, options):
    """With the robust term, too: losses, and the gradient of each parameter."""
    found = []
    for place in (device, "cpu"):
        plan = plan_on(data, place, **options)
        plan.module.train()
        losses = plan.step(next(iter(plan.batches(0))))
        losses["total"].backward()
        gradients = {name: one.grad for name, one in plan.module.named_parameters() if one.grad is not None}
        found.append((losses, {name: one.to_dense().cpu() for name, one in gradients.items()}))
    (losses, gradients), (expected, right) = found
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {name: float(loss) for name, loss in expected.items()}, rel=1e-4
    )
    assert set(gradients) == set(right)
    for name, one in gradients.items():
        torch.testing.assert_close(one, right[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("base_loss", ["ce", "sampled", "gbce"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_training_is_that_of_the_cpu(data, device, base_loss, tmp_path):
    options = {"base_loss": base_loss, "negatives": 7, "epochs": 2, "learning_rate": 0.0005}
    plans, curves = [], []
    for number, place in enumerate((device, "cpu")):
        # Trained before the next is made, for both draw from one generator.
        plans.append(plan_on(data, place, **options))
        curves.append(told(curve_of(plans[-1], tmp_path / str(number))))
    found, expected = curves
    assert found == pytest.approx(expected, rel=0.02, abs=0.02)
    for name, one in plans[0].parameters.items():
        assert (one.cpu() - plans[1].parameters[name]).abs().mean() < 1e-3, name


@pytest.mark.parametrize("options", [{}, {"base_loss": "bce"}, {"student": "esasrec"}, {"student": "caser"}], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_seeds_together_are_those_of_the_cpu_alone(data, device, options):
    small = {"hidden_size": 16, "epochs": 2, "learning_rate": 0.0005}
    configs = [StudentConfig(seed=seed, dropout=0.0, device=device, **small | options) for seed in (1, 2, 3)]
    together = train_together(
        [1, 2, 3],
        lambda place, member: training.fit_recommender(configs[place], data, recorder=NoRecorder(), member=member),
    )
    for config, found in zip(configs, together, strict=True):
        alone = training.fit_recommender(replace(config, device="cpu"), data, recorder=NoRecorder())
        for name, one in found.model.state_dict().items():
            assert (one.cpu() - alone.model.state_dict()[name]).abs().mean() < 1e-3, name


@pytest.mark.parametrize("device", DEVICES)
def test_seeds_together_with_dropout_are_the_same_again(data, device):
    configs = [StudentConfig(hidden_size=16, seed=seed, dropout=0.3, device=device, epochs=2) for seed in (1, 2)]

    def trained() -> list[dict[str, torch.Tensor]]:
        found = train_together(
            [1, 2],
            lambda place, member: training.fit_recommender(configs[place], data, recorder=NoRecorder(), member=member),
        )
        return [one.model.state_dict() for one in found]

    for one, again in zip(trained(), trained(), strict=True):
        for name, value in one.items():
            # Sums of a GPU may be made in another order.
            assert (value - again[name]).abs().mean() <= (0 if device == "cpu" else 1e-3), name


@pytest.mark.parametrize("ends_on", ["the device", "the CPU"])
@pytest.mark.parametrize("base_loss", ["ce", "sampled"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_killed_training_goes_on(data, device, base_loss, ends_on, tmp_path):
    """Within its second epoch, on its device or on the CPU, with averages, rows that wait, and counted steps."""
    options = {"base_loss": base_loss, "negatives": 7, "epochs": 3}
    whole = plan_on(data, device, **options)
    expected = told(curve_of(whole, tmp_path / "whole"))
    killed = plan_on(data, device, **options)
    with pytest.raises(KilledError):
        curve_of(killed, tmp_path / "killed", kill_at=killed.num_batches + 2)
    resumed = plan_on(data, device if ends_on == "the device" else "cpu", **options)
    # Sums of a GPU may be made in another order.
    exact = {"rel": 0.0, "abs": 0.0} if device == "cpu" else {"rel": 0.02, "abs": 0.02}
    assert told(curve_of(resumed, tmp_path / "killed")) == pytest.approx(expected, **exact)
    for name, one in resumed.parameters.items():
        assert (one.cpu() - whole.parameters[name].cpu()).abs().mean() <= (0 if device == "cpu" else 2e-3), name


@pytest.mark.parametrize("base_loss", ["ce", "sampled"])
@pytest.mark.parametrize("device", DEVICES)
def test_averages_are_those_of_all_steps(data, device, base_loss):
    plan = plan_on(data, device, base_loss=base_loss, negatives=3, taught=False)
    averages = AveragedWeights(plan.parameters, 0.9, plan.row_sparse)
    by_hand = {name: one.detach().cpu().clone() for name, one in plan.parameters.items()}
    plan.module.train()
    for step, batch in enumerate(plan.batches(0)):
        plan.step(batch)["total"].backward()
        averages.begin_step()
        plan.optimizer.step()
        plan.optimizer.zero_grad(set_to_none=True)
        averages.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, one in plan.parameters.items():
            by_hand[name].lerp_(one.detach().cpu(), 1 - decay)
    with averages.in_use():
        for name, one in plan.parameters.items():
            assert one.device.type == device
            torch.testing.assert_close(one.detach().cpu(), by_hand[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_teacher_is_that_of_the_cpu(device, tmp_path):
    """Its losses while it is trained, and the places of its items."""
    data = small(tmp_path, users=12)
    llm, found = str(write_tiny_llm(tmp_path / "llm")), []
    for place in (device, "cpu"):
        options = {"llm": llm, "token_budget": 1200, "llm_learning_rate": 0.001, "lora_dropout": 0.0}
        config = TeacherConfig(**OPTIONS | options, device=place)
        teacher, progress = train_teacher(config, data, small_backbone(data), recorder=NoRecorder())
        found.append((told_of_teacher(progress), teacher.ranks()[1].ranks.cpu()))
    (losses, ranks), (expected, right) = found
    assert losses
    assert losses == pytest.approx(expected, rel=1e-2)
    assert (ranks - right).abs().float().mean() < 1


def told_of_teacher(progress: fitting.Progress) -> list[float]:
    """The loss of each part of a teacher's training."""
    return [metrics["train/total"] for _, metrics in progress.history]
