"""What every program of `benchmarks/peers.py` shares: the split, the clock of training, ranks, and the line printed.

It needs NumPy and pandas alone, for it runs in the environment of each library.
"""

import argparse
import copy
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Layout of all models: width, blocks, heads, items read, windows a batch, dropout where the library's is not kept.
HIDDEN, BLOCKS, HEADS, LENGTH, WINDOWS, DROPOUT = 64, 2, 2, 50, 128, 0.2
#: Users that are scored at a time.
SCORED = 128
#: Scores of histories: float [n, V].
Score = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Split:
    """A leave-one-out split.

    Attributes:
        train: items of each user in order of time, without the last two.
        validation, test: the last item but one, and the last, of each user.
        num_items: V; items are 0 .. V-1.
    """

    train: list[np.ndarray]
    validation: np.ndarray
    test: np.ndarray
    num_items: int

    @property
    def windows(self) -> list[np.ndarray]:
        """The last items of each user that one window and its targets hold: at most LENGTH + 1."""
        return [items[-LENGTH - 1 :] for items in self.train]

    @property
    def test_histories(self) -> list[np.ndarray]:
        """All that came before the test targets."""
        return [np.append(items, last) for items, last in zip(self.train, self.validation, strict=True)]


def read_split(path: Path) -> Split:
    """Read a file with columns user, item, timestamp, sorted by user, then time; its users and items are numbers."""
    table = pd.read_csv(path)
    items = np.split(table["item"].to_numpy(np.int64), np.flatnonzero(np.diff(table["user"].to_numpy())) + 1)
    last = np.array([one[-2:] for one in items])
    num_items = len(pd.read_csv(path.with_name("items.csv")))
    return Split([one[:-2] for one in items], last[:, 0], last[:, 1], num_items)


def rank_of_target(scores: np.ndarray, target: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """Rank of each row's target, 1 the best: 1 + the other items, not seen, that score at least as high.

    Ties count against the model. A target that was seen is a miss: rank V + 1. An item that a library does not know
    has the score -inf.

    Args:
        scores: [n, V].
        target: int [n].
        seen: items of each row that are left out.

    Returns int64 [n]. Raises ValueError for a score that is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN: the training diverged")
    rows = np.arange(len(target))
    beats = scores >= scores[rows, target][:, None]
    missed = np.array([one in items for one, items in zip(target, seen, strict=True)], dtype=bool)
    for row, items in enumerate(seen):
        beats[row, items] = False
    beats[rows, target] = False
    return np.where(missed, scores.shape[1] + 1, 1 + beats.sum(axis=1))


def ndcg_at_10(ranks: np.ndarray) -> float:
    """Mean of 1 / log2(1 + rank) of the ranks up to 10."""
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())


def ranks_of(score: Score, histories: Sequence[np.ndarray], target: np.ndarray) -> np.ndarray:
    """Ranks of the targets, int64 [N], some users at a time; what is in a history is left out."""
    parts = []
    for start in range(0, len(target), SCORED):
        part = slice(start, start + SCORED)
        parts.append(rank_of_target(score(histories[part]), target[part], histories[part]))
    return np.concatenate(parts)


def peak_mib() -> float:
    """The most memory that this process ever had, as `recdistill.training.resources.peak_resident` has it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    # The other number may be that of the process that started this one.
    own = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return (own[0] if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


@dataclass
class Training:
    """The clock of a training, which stands still while it is validated, and the best weights.

    Attributes:
        seconds: CPU seconds after which training ends, within an epoch too.
        patience: epochs without a better validation NDCG@10 after which it ends.
        score: of the model as it is.
        weights: reads the model's weights, as a dictionary of tensors.
        split: whose validation targets are ranked.
    """

    seconds: float
    patience: int
    score: Score
    weights: Callable[[], dict[str, Any]]
    split: Split
    used: float = 0.0
    positions: int = 0
    unvalidated: int = 0
    epochs: int = 0
    best: float = -1.0
    best_epoch: int = -1
    kept: dict[str, Any] = field(default_factory=dict)
    peak: float = 0.0
    started: float | None = None

    def start(self) -> None:
        """Let the clock run."""
        self.started = time.process_time()

    def stop(self) -> None:
        """Let it stand still."""
        if self.started is not None:
            self.used += time.process_time() - self.started
            self.started = None

    def step(self, positions: int) -> bool:
        """Count a step's positions with a loss. Returns whether there is time for another."""
        self.positions += positions
        self.unvalidated += positions
        running = 0.0 if self.started is None else time.process_time() - self.started
        return self.used + running < self.seconds

    def end_epoch(self) -> bool:
        """Validate, the clock standing still, and keep the best weights. Returns whether training goes on."""
        self.stop()
        self.peak = max(self.peak, peak_mib())
        if self.unvalidated:
            ndcg = ndcg_at_10(ranks_of(self.score, self.split.train, self.split.validation))
            if ndcg > self.best:
                self.best, self.best_epoch, self.kept = ndcg, self.epochs, copy.deepcopy(self.weights())
            self.epochs, self.unvalidated = self.epochs + 1, 0
        goes_on = self.used < self.seconds and self.epochs - 1 - self.best_epoch < self.patience
        if goes_on:
            self.start()
        return goes_on


def callback_of(base: type, training: Training, positions: Callable[[dict[str, Any]], int]) -> Any:
    """A callback of Lightning, in either of its packages, that keeps ``training``."""

    class Clocked(base):  # type: ignore[misc, valid-type]
        """Counts positions, validates after epochs, and ends the training."""

        def on_train_start(self, trainer: Any, module: Any) -> None:
            training.start()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if not training.step(positions(batch)):
                trainer.should_stop = True

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            module.eval()
            if not training.end_epoch():
                trainer.should_stop = True
            module.train()

    return Clocked()


def parse_arguments() -> argparse.Namespace:
    """What `benchmarks/peers.py` calls a program with."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="interactions.csv, beside items.csv")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--patience", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--layout", choices=("default", "theirs"), default="theirs")
    return parser.parse_args()


def print_line(training: Training, before: float, classes: int, packages: Sequence[str], settings: str) -> None:
    """Rank the test targets by the weights that the model has now, and print the line.

    Args:
        training: the finished one.
        before: MiB that the process had before it.
        classes: items in the softmax.
        packages: whose versions are told.
        settings: what is the library's own, in words.
    """
    ranks = ranks_of(training.score, training.split.test_histories, training.split.test)
    line = {
        "positions_per_second": round(training.positions / training.used, 1),
        "positions": training.positions,
        "seconds": round(training.used, 2),
        "epochs": training.epochs,
        "best_epoch": training.best_epoch + 1,
        "peak_mib": round(training.peak),
        "training_mib": round(training.peak - before),
        "ndcg_at_10": round(ndcg_at_10(ranks), 4),
        "classes": classes,
        "versions": {name: version(name) for name in packages},
        "settings": settings,
    }
    print(json.dumps(line), flush=True)
