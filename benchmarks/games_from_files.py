"""Distil all three students from DLLM2Rec's own files alone, through the entry point ``distill``.

``python benchmarks/games_from_files.py FOLDER`` takes a folder with ``val_data.csv`` and ``test_data.csv`` as DLLM2Rec
releases them (and its ``train_data.df`` and teacher files, where they are there). Where the training file is missing,
the validation rows are trained on and the test rows are halved into validation and test; where the teacher files are
missing, a co-occurrence model of the training rows stands in: its rankings, and its factors as item embeddings. The
options are those of the release's README run. Prints each student's metrics, and one JSON line last.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import torch

from recdistill.__main__ import main as recdistill
from recdistill.data.sequences import SequenceData
from recdistill.data.sources.dllm2rec import read_dllm2rec
from recdistill.release.teacher_files import write_teacher_files
from recdistill.teachers.outputs import Manifest, TeacherOutputs

RELEASE = {
    "hidden_size": 64, "blocks": 1, "heads": 1, "dropout": 0.1, "max_length": 10, "output": "linear",
    "base_loss": "bce", "batch_size": 256, "learning_rate": 0.001, "alpha": 0.5, "ed_weight": 0.3, "lam": 0.7,
    "exclude_seen": "false",
}  # fmt: skip
STUDENTS = ("sasrec", "gru4rec", "caser")
SHOWN = ("test/hr_at_10", "test/ndcg_at_10", "train_seconds")
FACTORS = 256
CANDIDATES = 50


def prepared(source: Path, folder: Path) -> None:
    """Copy the files, making a training file where there is none."""
    if any((source / name).is_file() for name in ("train_data.df", "train_data.csv")):
        for path in source.iterdir():
            shutil.copy(path, folder)
        return
    shutil.copy(source / "val_data.csv", folder / "train_data.csv")
    header, *rows = (source / "test_data.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    half = len(rows) // 2
    (folder / "val_data.csv").write_text(header + "".join(rows[:half]), encoding="utf-8")
    (folder / "test_data.csv").write_text(header + "".join(rows[half:]), encoding="utf-8")


def stand_in_teacher(data: SequenceData) -> TeacherOutputs:
    """Rankings by how often items stand in one history, and factors of those counts."""
    train, items = data.train, data.num_items
    history, _ = train.windows_of(range(len(train)), 10, items)
    member = torch.zeros(len(train), items + 1)
    member.scatter_(1, torch.as_tensor(history), 1.0)
    member[torch.arange(len(train)), torch.as_tensor(train.targets)] = 1.0
    member = member[:, :items]
    weighted = member / member.sum(dim=0).clamp(min=1).sqrt()
    left, values, right = torch.svd_lowrank(weighted, q=FACTORS, niter=2)
    scores = (left * values) @ right.T
    scores.scatter_(1, torch.as_tensor(np.minimum(history, items - 1)), -torch.inf)
    log_probs = scores.log_softmax(dim=1)
    best, ranking = log_probs.topk(CANDIDATES, dim=1)
    return TeacherOutputs(
        manifest=Manifest(data.fingerprint, "co-occurrence", items, len(train), data.split, "imported"),
        sample=torch.arange(len(train)),
        ranking=ranking,
        distance=-best,
        item_embedding=torch.nn.functional.normalize(right - right.mean(dim=0), dim=1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil all three students from DLLM2Rec's own files alone.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared(arguments.folder, folder)
        if not (folder / "myrank_train.txt").is_file():
            write_teacher_files(folder, stand_in_teacher(read_dllm2rec(str(folder))))
        for student in STUDENTS:
            options = RELEASE | {"student": student, "epochs": arguments.epochs, "dataset": "dllm2rec"}
            options |= {"interactions": folder, "teacher_files": folder}
            started = time.perf_counter()
            status = recdistill(["distill", *(f"--{name}={value}" for name, value in options.items())])
            assert status == 0
            run = mlflow.last_active_run()
            assert run is not None
            metrics = mlflow.get_run(run.info.run_id).data.metrics
            results[student] = {name: round(metrics[name], 4) for name in SHOWN}
            print(f"{student}: {results[student]}, run {run.info.run_id}, {time.perf_counter() - started:.0f} s in all")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
