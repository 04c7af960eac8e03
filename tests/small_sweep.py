"""A space and objectives without any training. Imported by worker processes too."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.errors import InputError
from recdistill.sweep.space import Space
from recdistill.sweep.space_file import read_space
from recdistill.sweep.study import OpenStudy, StudyPlace
from recdistill.sweep.trials import Start, run_trials

EPOCHS = 6
TEXT = """\
objective: val/ndcg_at_20
sampler: {name: tpe, startup_trials: 4}
parameters:
  lam: {low: 0.0, high: 2.0}
  alpha: {low: 1e-3, high: 1.0, log: true}
  selection_policy: {choices: [all, random, coverage]}
  selection_fraction: {low: 0.1, high: 0.9, unless: {selection_policy: all}}
"""


@contextmanager
def train(start: Start) -> Iterator[Mapping[str, float]]:
    """Best at lam 1, alpha 0.1; the same curve whatever the values, times the value."""
    value = 1 - abs(float(start.values["lam"]) - 1) - abs(float(start.values.get("alpha", 0.1)) - 0.1)
    for epoch in range(EPOCHS):
        start.report(epoch, {"val/ndcg_at_20": value * (epoch + 1) / EPOCHS})
    yield {"val/ndcg_at_20": value, "latency_ms": 1 + value**2}


def make_space(folder: Path, text: str = TEXT) -> Space:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return read_space(path)


def place_in(folder: Path, name: str = "study") -> StudyPlace:
    return StudyPlace(f"sqlite:///{folder}/optuna.db", name, heartbeat_seconds=1, grace_seconds=2)


def run(
    opened: OpenStudy,
    space: Space,
    total: int,
    training: Callable[[Start], AbstractContextManager[Mapping[str, float]]] = train,
) -> None:
    run_trials(opened.study, opened.storage, space, total, training, grace_seconds=2)


@dataclass(frozen=True)
class Slow:
    """Trains for a while, and says in a file which process does."""

    folder: Path
    seconds: float

    @contextmanager
    def __call__(self, start: Any) -> Iterator[Mapping[str, float]]:
        (self.folder / str(os.getpid())).touch()
        time.sleep(self.seconds)
        with train(start) as metrics:
            yield metrics
        (self.folder / "trials").mkdir(exist_ok=True)
        (self.folder / "trials" / f"{start.number}-{os.getpid()}").touch()


@contextmanager
def missing(start: Any) -> Iterator[Mapping[str, float]]:
    raise InputError("no teacher there")
    yield {}


def square(number: int) -> int:
    return number * number


@dataclass(frozen=True)
class DiesOnce:
    folder: Path

    def __call__(self, number: int) -> int:
        mark = self.folder / str(number)
        if number == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number


@contextmanager
def refused(start: Any) -> Iterator[Mapping[str, float]]:
    """Says nothing good of trial 2 and later ones."""
    if start.number >= 2:
        raise InputError("no teacher there")
    with train(start) as metrics:
        yield metrics


class Waits:
    """Waits long in a task, until it is told to end, which it notes; another task fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: int) -> int:
        if task == 1:
            while not (self.folder / "begun").exists():
                time.sleep(0.01)
            raise InputError("task 1 cannot be")
        (self.folder / "begun").touch()
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            (self.folder / "ended").touch()
            raise
        return task
