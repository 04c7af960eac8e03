"""DLLM2Rec's three teacher files, read as teacher outputs and written from them (RecSys 2024 release).

One folder, rows aligned with the training samples:

- ``myrank_train.txt`` [N, top_n]: item ids, best first, separated by white space.
- ``confidence_train.txt`` [N, top_n]: the candidates' distances, at least 0, small is sure. Where nearly all of them
  fall along the ranking, they are scores or the ranking is turned round, and are refused.
- ``all_embeddings.pt`` [V, E]: a tensor of ``torch.save``; or ``all_embeddings.safetensors``, one tensor.

A sample that the teacher does not cover is a row of -1 in the first file and of inf in the second. The release
knows no such row and stops at it; a file without them is read by the release and by us alike. The release's code
has E = 4096 written in: for another E change that number there.
"""

import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recdistill.errors import InputError, one_line
from recdistill.release.saved_tensor import read_saved_tensor
from recdistill.teachers.outputs import Manifest, TeacherOutputs

RANKING_FILE = "myrank_train.txt"
DISTANCE_FILE = "confidence_train.txt"
EMBEDDING_FILES = ("all_embeddings.pt", "all_embeddings.safetensors")
IMPORTED_CONFIDENCE = "the distance in confidence_train.txt (DLLM2Rec: L2 to the item's embedding); small is sure"
NOT_COVERED = -1
FALLING = 0.9  # of the steps along the rankings; scores fall everywhere but where they are equal


def read_teacher_files(
    folder: str | Path, *, fingerprint: str, num_items: int, num_samples: int, split: str = ""
) -> TeacherOutputs:
    """Read the three files in ``folder``, and check them against the data at hand.

    Args:
        folder: where they lie.
        fingerprint: of the data whose training samples the rows are aligned with; the files name none.
        num_items: V of that data.
        num_samples: N of that data, its training samples.
        split: of that data, for the manifest.

    Raises:
        InputError: a file is missing or unreadable, shapes do not fit, a number is out of range, or the distances fall
            where they should rise. One line.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder with {RANKING_FILE}")
    ranking, distance, covered = _read_tables(folder, num_items, num_samples)
    path, embedding = _read_embedding(folder, num_items)
    return TeacherOutputs(
        manifest=Manifest(
            fingerprint=fingerprint,
            llm=f"unknown, imported from {RANKING_FILE}, {DISTANCE_FILE} and {path.name}",
            num_items=num_items,
            num_samples=num_samples,
            split=split,
            teacher="imported",
            confidence=IMPORTED_CONFIDENCE,
            versions={},
        ),
        sample=torch.from_numpy(np.flatnonzero(covered)),
        ranking=torch.from_numpy(ranking[covered].astype(np.int64)),
        distance=torch.from_numpy(distance[covered].astype(np.float32)),
        item_embedding=embedding.float(),
    )


def write_teacher_files(folder: str | Path, outputs: TeacherOutputs, *, allow_partial: bool = False) -> None:
    """Write the three files, one row for each of the N training samples; others in ``folder`` stay.

    Args:
        folder: where to, made if absent.
        outputs: the teacher's; its sequence embeddings have no place in the files.
        allow_partial: write a row of -1, and of inf, for each sample that the teacher does not cover. The
            release stops at such rows.

    Raises:
        InputError: the teacher does not cover every training sample, and ``allow_partial`` is False.
    """
    folder = Path(folder).expanduser()
    num_samples, covered = outputs.manifest.num_samples, len(outputs.sample)
    if covered < num_samples and not allow_partial:
        raise InputError(
            f"the teacher covers {covered} of {num_samples} training samples, the files need every row; "
            "score all samples, or allow rows of -1"
        )
    ranking = torch.full((num_samples, outputs.top_n), NOT_COVERED, dtype=torch.int64)
    distance = torch.full((num_samples, outputs.top_n), math.inf)
    ranking[outputs.sample] = outputs.ranking.long()
    distance[outputs.sample] = outputs.distance.float()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        complete = Path(scratch)
        np.savetxt(complete / RANKING_FILE, ranking.numpy(), fmt="%d")
        np.savetxt(complete / DISTANCE_FILE, distance.numpy(), fmt="%.9g")  # 9 digits tell all float32 apart
        torch.save(outputs.item_embedding.detach().float().cpu().contiguous().clone(), complete / EMBEDDING_FILES[0])
        for name in (RANKING_FILE, DISTANCE_FILE, EMBEDDING_FILES[0]):
            (complete / name).replace(folder / name)


def _read_tables(
    folder: Path, num_items: int, num_samples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Candidates and distances [N, top_n], checked, and which rows [N] the teacher covers."""
    ranking_path, distance_path = folder / RANKING_FILE, folder / DISTANCE_FILE
    ranking, distance = _read_table(ranking_path), _read_table(distance_path)
    if ranking.shape != distance.shape:
        raise InputError(
            f"{distance_path}: has {_shape(distance)}, {RANKING_FILE} {_shape(ranking)}; give one distance a candidate"
        )
    if len(ranking) != num_samples:
        raise InputError(
            f"{ranking_path}: has {len(ranking)} rows, the data {num_samples} training samples; "
            "give one row a training sample, in their order"
        )
    covered = ~(ranking == NOT_COVERED).all(axis=1)
    _refuse(ranking_path, (ranking % 1 != 0) & covered[:, None], ranking, "is no item id; give whole numbers")
    outside = ((ranking < 0) | (ranking >= num_items)) & covered[:, None]
    _refuse(ranking_path, outside, ranking, f"is no item; ids are 0 to {num_items - 1}")
    finite = np.isfinite(distance) | ~covered[:, None]
    _refuse(distance_path, ~finite, distance, "is not finite; give a distance")
    negative = (distance < 0) & covered[:, None]
    _refuse(distance_path, negative, distance, "is negative; give distances, at least 0, where small is sure")
    _refuse_falling(distance_path, distance, covered)
    return ranking, distance, covered


def _refuse_falling(path: Path, distance: NDArray[np.float64], covered: NDArray[np.bool_]) -> None:
    """Raise InputError where what should rise from the best candidate on falls, as scores do."""
    step = np.diff(distance[covered], axis=1)
    falls, rises = step < 0, step > 0
    if falls.any() and falls.sum() >= FALLING * (falls.sum() + rises.sum()):
        row = int(np.flatnonzero(covered)[falls.any(axis=1).argmax()])
        shown = ", ".join(f"{value:.6g}" for value in distance[row, :4])
        raise InputError(
            f"{path}: row {row + 1} falls along its candidates ({shown}), as {falls.sum() / (falls | rises).sum():.0%} "
            f"of the file does: if these are scores, large is sure, and distances must be written in their place; if "
            f"they are distances, {RANKING_FILE} has the worst candidate first, and its rows must be turned round"
        )


def _read_table(path: Path) -> NDArray[np.float64]:
    """Numbers separated by white space [N, C], as ``numpy.loadtxt`` of the release reads them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is said below
            table = np.loadtxt(path, ndmin=2)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; put it there") from None
    except (OSError, ValueError) as error:
        said = one_line(str(error).split("; use `usecols`")[0])
        raise InputError(f"{path}: is no table of numbers ({said}); give one row a training sample") from None
    if not table.size:
        raise InputError(f"{path}: holds no rows; give one row a training sample")
    return table


def _read_embedding(folder: Path, num_items: int) -> tuple[Path, Tensor]:
    """The file of the item embeddings, and the embeddings [V, E], checked."""
    path = next((folder / name for name in EMBEDDING_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: holds no {' and no '.join(EMBEDDING_FILES)}; put one there")
    embedding = read_saved_tensor(path) if path.suffix == ".pt" else _only_tensor(path)
    if embedding.ndim != 2 or len(embedding) != num_items or not embedding.is_floating_point():
        raise InputError(
            f"{path}: is {embedding.dtype} {list(embedding.shape)}; give one row of real numbers for each of "
            f"the {num_items} items, [{num_items}, E]"
        )
    if not bool(torch.isfinite(embedding).all()):
        raise InputError(f"{path}: holds NaN or infinity; make the item embeddings again")
    return path, embedding


def _only_tensor(path: Path) -> Tensor:
    """The one tensor of a safetensors file."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); write it again") from None
    if len(tensors) != 1:
        raise InputError(f"{path}: holds {len(tensors)} tensors; keep the item embeddings alone")
    return next(iter(tensors.values()))


def _refuse(path: Path, wrong: NDArray[np.bool_], table: NDArray[np.float64], reason: str) -> None:
    """Raise InputError at the first number that is wrong, rows and columns counted from 1."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(f"{path}: row {row + 1}, column {column + 1}: {table[row, column]:.12g} {reason}")


def _shape(table: NDArray[np.float64]) -> str:
    return f"{table.shape[0]} rows of {table.shape[1]}"
