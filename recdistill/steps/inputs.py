"""What steps start from: the data, and the finished runs of earlier steps, each loaded once a process."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch

from recdistill.config import Config, DataConfig
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.students.build import load_student
from recdistill.students.student import Student
from recdistill.release.teacher_files import read_teacher_files
from recdistill.teachers.outputs import TeacherOutputs, read_teacher_outputs
from recdistill.runs.step_runs import StepRun

_load_data = lru_cache(maxsize=2)(load_data)


def data_of(config: DataConfig) -> SequenceData:
    """The data set of the options."""
    return _load_data(
        config.dataset, config.interactions, config.items, config.split, config.min_interactions, config.max_users
    )


def device_of(config: Config) -> torch.device:
    """The device of the options; ``auto`` is the accelerator where there is one."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: torch finds no CUDA device here; set device=auto or device=cpu")
    return torch.device(config.device)


def frozen_student(run: StepRun, device: torch.device) -> Student:
    """A finished run's student, in evaluation mode, without gradients."""
    return load_student(run.artifact("student")).to(device).requires_grad_(False)


@dataclass(frozen=True, eq=False)
class ImportedTeacher:
    """A teacher from files: its outputs, and in place of a run what tells it from others."""

    run: StepRun
    outputs: TeacherOutputs


@lru_cache(maxsize=2)
def _teacher_outputs(run_id: str, fingerprint: str) -> TeacherOutputs:
    folder = StepRun(run_id, "", fingerprint, reused=True).artifact("teacher_outputs")
    return read_teacher_outputs(folder, fingerprint)


@lru_cache(maxsize=1)
def imported_teacher(folder: str, fingerprint: str, num_items: int, num_samples: int, split: str) -> ImportedTeacher:
    """DLLM2Rec's three teacher files in a folder, checked against the data they are said to be of."""
    outputs = read_teacher_files(
        folder, fingerprint=fingerprint, num_items=num_items, num_samples=num_samples, split=split
    )
    digest = hashlib.sha256()
    for tensor in (outputs.sample, outputs.ranking, outputs.distance, outputs.item_embedding):
        digest.update(f"{list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return ImportedTeacher(StepRun("", digest.hexdigest(), fingerprint, reused=True), outputs)


def teacher_outputs_of(run: StepRun, data: SequenceData) -> TeacherOutputs:
    """What a teacher's run left, checked against the data."""
    outputs = _teacher_outputs(run.run_id, data.fingerprint)
    if outputs.manifest.num_samples != len(data.train):
        raise InputError(
            f"run {run.run_id}: its teacher outputs are of {outputs.manifest.num_samples} training samples, "
            f"this data has {len(data.train)}; make them again"
        )
    return outputs
