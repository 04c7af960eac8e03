"""DLLM2Rec's teacher files: small ones by hand, written and read back."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recdistill.errors import InputError
from recdistill.release.teacher_files import read_teacher_files, write_teacher_files
from recdistill.teachers.outputs import Manifest, TeacherOutputs

RANKING = [[3, 0, 1], [2, 4, 0]]
DISTANCE = [[0.25, 1.0, 1.5], [0.0, 2.0, 7.0]]
EMBEDDING = torch.arange(10.0).view(5, 2)


def write(folder: Path, ranking=RANKING, distance=DISTANCE, embedding: object = EMBEDDING) -> Path:
    np.savetxt(folder / "myrank_train.txt", ranking)  # the release's ids may be written as 3.0e+00
    np.savetxt(folder / "confidence_train.txt", distance)
    torch.save(embedding, folder / "all_embeddings.pt")
    return folder


def read(folder: Path, num_items: int = 5, num_samples: int = 2) -> TeacherOutputs:
    return read_teacher_files(
        folder, fingerprint="ab", num_items=num_items, num_samples=num_samples, split="leave-one-out"
    )


def test_small_files_by_hand(tmp_path: Path) -> None:
    found = read(write(tmp_path))
    assert found.sample.tolist() == [0, 1]
    assert found.ranking.tolist() == RANKING
    assert found.distance.tolist() == DISTANCE
    assert found.distance.dtype == torch.float32
    assert torch.equal(found.item_embedding, EMBEDDING)
    assert found.sequence_embedding is None
    manifest = found.manifest
    assert (manifest.fingerprint, manifest.num_items, manifest.num_samples) == ("ab", 5, 2)
    assert (manifest.split, manifest.teacher, manifest.versions) == ("leave-one-out", "imported", {})
    assert "distance in confidence_train.txt" in manifest.confidence
    assert "log p" not in manifest.confidence


def test_plain_integers_and_half_precision_and_safetensors(tmp_path: Path) -> None:
    folder = write(tmp_path, embedding=EMBEDDING.half())
    (folder / "myrank_train.txt").write_text("3 0 1\n2 4 0\n")
    assert read(folder).ranking.tolist() == RANKING
    assert torch.equal(read(folder).item_embedding, EMBEDDING)
    (folder / "all_embeddings.pt").unlink()
    save_file({"anything": EMBEDDING + 1}, folder / "all_embeddings.safetensors")
    assert torch.equal(read(folder).item_embedding, EMBEDDING + 1)


def outputs(sample: list[int], num_samples: int, seed: int = 0) -> TeacherOutputs:
    generator = torch.Generator().manual_seed(seed)
    return TeacherOutputs(
        manifest=Manifest(fingerprint="ab", llm="some-llm", num_items=30, num_samples=num_samples),
        sample=torch.tensor(sample),
        ranking=torch.stack([torch.randperm(30, generator=generator)[:6] for _ in sample]),
        distance=9 * torch.rand(len(sample), 6, generator=generator) ** 8,  # small ones, too
        item_embedding=torch.randn(30, 7, generator=generator),
    )


@pytest.mark.parametrize("sample", [[0, 1, 2, 3], [1, 3]])
def test_written_and_read_is_the_same_to_the_bit(tmp_path: Path, sample: list[int]) -> None:
    written = outputs(sample, 4)
    write_teacher_files(tmp_path / "new" / "folder", written, allow_partial=len(sample) < 4)
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == [
        "all_embeddings.pt",
        "confidence_train.txt",
        "myrank_train.txt",
    ]
    found = read(tmp_path / "new" / "folder", num_items=30, num_samples=4)
    for name in ("sample", "ranking", "distance", "item_embedding"):
        assert torch.equal(getattr(found, name), getattr(written, name)), name


def test_the_release_reads_what_is_written(tmp_path: Path) -> None:
    """By the calls that its main.py makes."""
    written = outputs([0, 1, 2, 3], 4)
    write_teacher_files(tmp_path, written)
    candidate = torch.LongTensor(np.loadtxt(tmp_path / "myrank_train.txt"))
    confidence = torch.tensor(np.loadtxt(tmp_path / "confidence_train.txt"), dtype=torch.float)
    embeddings = torch.load(tmp_path / "all_embeddings.pt", weights_only=True)
    assert torch.equal(candidate, written.ranking)
    assert torch.equal(confidence, written.distance)
    assert torch.equal(embeddings, written.item_embedding)


def test_partial_coverage_is_refused_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="covers 2 of 4 training samples") as caught:
        write_teacher_files(tmp_path / "files", outputs([1, 3], 4))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "files").exists()
    write_teacher_files(tmp_path / "files", outputs([1, 3], 4), allow_partial=True)
    rows = (tmp_path / "files" / "myrank_train.txt").read_text().splitlines()
    assert rows[0] == rows[2] == "-1 -1 -1 -1 -1 -1"
    assert np.isinf(np.loadtxt(tmp_path / "files" / "confidence_train.txt")[[0, 2]]).all()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_teacher_files(tmp_path, outputs([0], 1))
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranking": [*RANKING, [1, 2, 3]]}, r"confidence_train\.txt: has 2 rows of 3, myrank_train\.txt 3 rows of 3"),
        ({"distance": [[1, 2], [1, 2]]}, r"has 2 rows of 2"),
        ({"ranking": [[3, 0, 1]], "distance": [[1, 2, 3]]}, "has 1 rows, the data 2 training samples"),
        ({"ranking": [[3, 0, 1], [2, 5, 0]]}, r"myrank_train\.txt: row 2, column 2: 5 is no item; ids are 0 to 4"),
        ({"ranking": [[3, 0, 1], [2, -1, 0]]}, "row 2, column 2: -1 is no item"),
        ({"ranking": [[3, 0, 1.5], [2, 4, 0]]}, "row 1, column 3: 1.5 is no item id"),
        ({"ranking": [[3, 0, np.nan], [2, 4, 0]]}, "row 1, column 3: nan is no item id"),
        ({"distance": [[0.1, np.nan, 1], [1, 2, 3]]}, r"confidence_train\.txt: row 1, column 2: nan is not finite"),
        ({"distance": [[0.1, 2, 1], [1, 2, np.inf]]}, "row 2, column 3: inf is not finite"),
        ({"distance": [[0.1, -2.5, 1], [1, 2, 3]]}, r"row 1, column 2: -2\.5 is negative; give distances"),
        ({"embedding": EMBEDDING[1:]}, r"all_embeddings\.pt: is torch\.float32 \[4, 2\]; .* \[5, E\]"),
        ({"embedding": EMBEDDING[0]}, r"is torch\.float32 \[2\]"),
        ({"embedding": EMBEDDING.long()}, r"is torch\.int64"),
        ({"embedding": EMBEDDING * torch.nan}, "holds NaN or infinity"),
        ({"embedding": [EMBEDDING]}, "holds a list, not a tensor"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (
            [[0.9, 0.5, 0.1], [0.8, 0.7, 0.2]],
            r"row 1 falls along its candidates \(0.9, 0.5, 0.1\), as 100% of the file",
        ),
        ([[0.0, 0.0, 0.0], [12.5, 3.0, 3.0]], r"row 2 falls along its candidates \(12.5, 3, 3\), as 100%"),
    ],
)
def test_scores_where_distances_belong_are_refused_with_both_readings(tmp_path: Path, distance, said: str) -> None:
    with pytest.raises(InputError, match=rf"confidence_train\.txt: {said}") as caught:
        read(write(tmp_path, distance=distance))
    told = str(caught.value)
    assert "if these are scores, large is sure, and distances must be written in their place" in told
    assert "if they are distances, myrank_train.txt has the worst candidate first" in told
    assert "\n" not in told


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_what_rises_or_has_no_order_is_read_and_what_falls_is_not(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    ranking = np.array([random.permutation(30)[:8] for _ in range(40)])
    logits = np.sort(random.normal(size=(40, 8)), axis=1)[:, ::-1]
    embedding = torch.randn(30, 2)
    of_rows = {"num_items": 30, "num_samples": 40}
    for fine in (-np.log(softmax(logits)), random.random((40, 8)), np.ones((40, 8)), logits.max() - logits):
        read(write(tmp_path, ranking, fine, embedding), **of_rows)
        # One row in twenty may do as it likes.
        mixed = np.where(np.arange(40)[:, None] % 20 == 0, fine[:, ::-1], fine)
        read(write(tmp_path, ranking, mixed, embedding), **of_rows)
    for wrong in (softmax(logits), logits - logits.min(), np.sort(random.random((40, 8)), axis=1)[:, ::-1]):
        mixed = np.where(np.arange(40)[:, None] % 20 == 0, wrong[:, ::-1], wrong)
        for falling in (wrong, mixed):
            with pytest.raises(InputError, match="falls along its candidates"):
                read(write(tmp_path, ranking, falling, embedding), **of_rows)


def test_samples_that_are_not_covered_do_not_count(tmp_path: Path) -> None:
    ranking, distance = [[-1, -1, -1], [2, 4, 0]], [[np.inf, np.inf, np.inf], [0.5, 0.25, 0.125]]
    with pytest.raises(InputError, match="row 2 falls along its candidates"):
        read(write(tmp_path, ranking, distance))
    assert read(write(tmp_path, ranking, [[9.0, 5.0, 1.0], [0.125, 0.25, 0.5]])).sample.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "holds no rows"), ("1 2\n3\n", "number of columns changed"), ("a b\n", "is no table of numbers")],
)
def test_broken_tables_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (write(tmp_path) / "confidence_train.txt").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path)
    assert "confidence_train.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"myrank_train\.txt: no such file"):
        read(tmp_path)
    (write(tmp_path) / "all_embeddings.pt").unlink()
    with pytest.raises(InputError, match=r"holds no all_embeddings\.pt and no all_embeddings\.safetensors"):
        read(tmp_path)
    (tmp_path / "all_embeddings.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"all_embeddings\.safetensors: cannot be read"):
        read(tmp_path)
    save_file({"one": EMBEDDING, "two": EMBEDDING + 1}, tmp_path / "all_embeddings.safetensors")
    with pytest.raises(InputError, match="holds 2 tensors"):
        read(tmp_path)


class Touch:
    """Makes a file when unpickled the plain way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_nothing_in_the_embedding_file_runs(tmp_path: Path) -> None:
    folder = write(tmp_path, embedding=Touch(tmp_path / "ran"))
    with pytest.raises(InputError, match=r"refused: it names (posix|nt)\.system"):
        read(folder)
    (folder / "all_embeddings.pt").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(InputError, match="is no saved tensor"):
        read(folder)
    assert not (tmp_path / "ran").exists()
