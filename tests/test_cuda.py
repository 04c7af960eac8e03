"""On a CUDA device as on the CPU: losses, gradients, steps and rankings. Skipped where there is none."""

import pytest
import torch

from recdistill.config import StudentConfig
from recdistill.data.batches import Batch
from recdistill.data.sequences import SequenceData
from recdistill.distillation.objective import build_objective
from recdistill.students import training
from recdistill.students.build import build_student, shape_of
from recdistill.students.measure import ranks_of
from recdistill.testing.teachers import small_data

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
