"""Trainings of students in one process or in two, which a test starts as ``accelerate launch`` would."""

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.config import BaselineConfig, DistillConfig, StudentConfig
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.students.shape import shape_of
from recdistill.students.training import student_plan
from recdistill.training.distributed import Processes
from recdistill.training.fit import backward, fit, trained_by
from recdistill.training.gradients import SummedGradients
from recdistill.training.loss_sums import LossSums

SECONDS = 240


@dataclass
class Case:
    """A training: its options, with a teacher or not; ``epochs`` are trained one after the other, each gone on from."""

    name: str
    options: dict[str, Any]
    distilled: bool = True
    epochs: tuple[int, ...] = (2,)

    @property
    def config(self) -> StudentConfig:
        kind: type[StudentConfig] = DistillConfig if self.distilled else BaselineConfig
        return kind(**self.options)


@dataclass
class InFolder:
    """A recorder whose checkpoints stay in a folder."""

    work: Path
    tags: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def tag(self, name: str, value: Any) -> None:
        self.tags[name] = value

    def log_file(self, path: Path, folder: str) -> None:
        self.files.append(path.name)


def teacher_of(data: SequenceData) -> TeacherAnswers:
    """A teacher of two of three samples, with states."""
    generator = torch.Generator().manual_seed(0)
    samples = len(data.train)
    covered = torch.arange(samples) % 3 > 0
    sample = covered.nonzero().squeeze(1)
    return TeacherAnswers(
        covered=covered,
        ranking=torch.rand(samples, 40, generator=generator).argsort(dim=1)[:, :4],
        distance=torch.rand(samples, 4, generator=generator).sort(dim=1).values,
        item_embedding=torch.randn(data.num_items, 6, generator=generator),
        sample=sample,
        sequence_embedding=torch.randn(len(sample), 6, generator=generator),
        covered_share=len(sample) / samples,
    )


def train(case: Case, data: SequenceData, folder: Path, processes: Processes) -> None:
    """Train a case; the main process writes its curve, its weights and the gradient of its first batch."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher = teacher_of(data) if case.distilled else None
    gradients = first_gradients(case.config, data, teacher, folder, processes)
    save_file(gradients, folder / f"gradients-{processes.index}.safetensors")
    curve: list[dict[str, float]] = []
    for epochs in case.epochs:
        config = case.config
        recorder = InFolder(folder)
        _, plan = student_plan(config, data, shape_of(config), teacher, recorder, processes=processes)
        plan = replace(plan, epochs=epochs)
        curve.clear()
        fit(plan, folder / "student.safetensors", lambda metrics, epoch: curve.append(metrics))
        own = {"tags": recorder.tags, "files": recorder.files, "curve": curve}
        (folder / f"process-{processes.index}.json").write_text(json.dumps(own))
    parameters = {name: tensor.detach().clone() for name, tensor in plan.parameters.items()}
    save_file(parameters, folder / f"weights-{processes.index}.safetensors")


def first_gradients(
    config: StudentConfig, data: SequenceData, teacher: TeacherAnswers | None, folder: Path, processes: Processes
) -> dict[str, Tensor]:
    """The gradient of the first batch at every parameter that has one, dense."""
    _, plan = student_plan(config, data, shape_of(config), teacher, InFolder(folder), processes=processes)
    plan.module.train()
    step = SummedGradients(plan.step, trained_by(plan.optimizer), plan.row_sparse, processes)
    sums = LossSums()
    backward(plan, step, next(iter(plan.batches(0))), 1.0, sums)
    step.sum_sparse()
    losses = processes.sum_values(sums.take())
    found = {name: one.grad for name, one in plan.parameters.items() if one.grad is not None}
    dense = {name: grad.to_dense() if grad.is_sparse else grad.clone() for name, grad in found.items()}
    return dense | {f"loss.{name}": torch.tensor(value) for name, value in losses.items()}


def member(index: int, count: int, store: str, cases: list[Case], data: SequenceData, folder: Path) -> None:
    """Main function of a process."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=count)
    try:
        for case in cases:
            train(case, data, folder / case.name, Processes(index, count))
    finally:
        torch.distributed.destroy_process_group()


def run_processes(count: int, target: Callable[..., None], *arguments: Any) -> None:
    """Run ``target(index, count, store, *arguments)`` in so many processes, and see that all end well."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        started = [context.Process(target=target, args=(index, count, store, *arguments)) for index in range(count)]
        for process in started:
            process.start()
        for process in started:
            process.join(SECONDS)
        ended = [process.exitcode for process in started]
        for process in started:
            if process.is_alive():
                process.kill()
        assert ended == [0] * count


def read(folder: Path, case: Case, index: int = 0) -> tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Any]]:
    """Curve, weights and what else a process wrote."""
    own = json.loads((folder / case.name / f"process-{index}.json").read_text())
    return own["curve"], load_file(folder / case.name / f"weights-{index}.safetensors"), own
