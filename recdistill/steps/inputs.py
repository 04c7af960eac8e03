"""What steps start from: the data, and the finished runs of earlier steps, each loaded once a process."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from recdistill.config import DataConfig, TeacherConfig, narrow
from recdistill.config.base import option_table
from recdistill.data.file_state import FileState, state_of
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import SOURCES
from recdistill.release.teacher_files import RANKING_FILE, read_teacher_files
from recdistill.runs.plugins_of_runs import same_code
from recdistill.runs.run import StepRun
from recdistill.students.kept_student import load_kept
from recdistill.students.mapped import without_map
from recdistill.students.recommender import Recommender
from recdistill.students.student import Student
from recdistill.teachers.build import load_teacher
from recdistill.teachers.outputs import TeacherOutputs, read_teacher_outputs
from recdistill.teachers.protocol import Teacher


@lru_cache(maxsize=2)
def _load_data(config: DataConfig, state: tuple[FileState, ...]) -> SequenceData:
    """The data set of the options, whose files are in this ``state``."""
    return load_data(config)


def data_of(config: DataConfig) -> SequenceData:
    """The data set of the options, read again where a file has changed."""
    options = narrow(config, DataConfig, force=False)
    known = option_table(DataConfig)
    return _load_data(
        options, state_of(str(value) for name, value in options.values().items() if known[name].metadata["path"])
    )


def texts_in_key(config: DataConfig, data: SequenceData) -> dict[str, str]:
    """What the key of a step has that reads the items' texts: their columns' digest, where a user's files hold any.

    The data's fingerprint is of ids, titles and samples; a pinned data set has one items file.
    """
    if not data.item_columns or SOURCES.declaration(config.dataset).about.get("pinned"):
        return {}
    return {"item texts": _texts_digest(data)}


@lru_cache(maxsize=2)
def _texts_digest(data: SequenceData) -> str:
    return hashlib.sha256(json.dumps([data.titles, list(data.item_columns.items())]).encode()).hexdigest()


def fitted_recommender(run: StepRun, device: torch.device) -> Recommender:
    """The recommender of a finished run, in evaluation mode, without gradients.

    Raises InputError where it is a user's own, and its code is no longer that which it was trained with.
    """
    same_code(run)
    return load_kept(run.artifact("student")).to(device).requires_grad_(False)


def frozen_student(run: StepRun, device: torch.device) -> Student:
    """The student of a finished run, as `fitted_recommender`, without what maps further items into it.

    Raises InputError where it has no states to read.
    """
    found = without_map(fitted_recommender(run, device))
    if not isinstance(found, Student):
        raise InputError(
            f"run {run.run_id}: its recommender has no states of sequences; choose a sasrec or gru4rec run"
        )
    return found


def kept_teacher(
    run: StepRun, options: TeacherConfig, backbone: Student, data: SequenceData, device: torch.device | None = None
) -> Teacher:
    """The teacher of a finished run over its frozen backbone; see `load_teacher`.

    Raises InputError where its code, or its gate's, is a user's own, and no longer that which it was trained with.
    """
    same_code(run)
    return load_teacher(run.artifact("teacher"), options, backbone, data, device)


@dataclass(frozen=True, eq=False)
class ImportedTeacher:
    """A teacher from files: its outputs, and in place of a run what tells it from others."""

    run: StepRun
    outputs: TeacherOutputs


@lru_cache(maxsize=2)
def _teacher_outputs(run_id: str, fingerprint: str) -> TeacherOutputs:
    folder = StepRun(run_id, "", fingerprint, reused=True).artifact("teacher_outputs")
    return read_teacher_outputs(folder, fingerprint)


def imported_teacher(folder: str, data: SequenceData) -> ImportedTeacher:
    """The teacher outputs in a folder: ours, or DLLM2Rec's three files, checked against the data at hand."""
    place = str(Path(folder).expanduser().resolve())
    return _imported_teacher(place, data, state_of([place]))


@lru_cache(maxsize=1)
def _imported_teacher(folder: str, data: SequenceData, state: tuple[FileState, ...]) -> ImportedTeacher:
    """The outputs in a folder whose files are in this ``state``."""
    if (Path(folder) / RANKING_FILE).exists() or not Path(folder).is_dir():
        outputs = read_teacher_files(
            folder,
            fingerprint=data.fingerprint,
            num_items=data.num_items,
            num_samples=len(data.train),
            split=data.split,
        )
    else:
        outputs = read_teacher_outputs(folder, data.fingerprint)
        if outputs.manifest.num_samples != len(data.train):
            raise InputError(
                f"teacher_files={folder}: is of {outputs.manifest.num_samples} training samples, this data has "
                f"{len(data.train)}; give the outputs of a teacher of this data"
            )
    digest = hashlib.sha256()
    for tensor in (outputs.sample, outputs.ranking, outputs.distance, outputs.item_embedding):
        digest.update(f"{list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return ImportedTeacher(StepRun("", digest.hexdigest(), data.fingerprint, reused=True), outputs)


def teacher_outputs_of(run: StepRun, data: SequenceData) -> TeacherOutputs:
    """What a teacher's run left, checked against the data."""
    outputs = _teacher_outputs(run.run_id, data.fingerprint)
    if outputs.manifest.num_samples != len(data.train):
        raise InputError(
            f"run {run.run_id}: its teacher outputs are of {outputs.manifest.num_samples} training samples, "
            f"this data has {len(data.train)}; make them again"
        )
    return outputs
