"""The recorder of a training: it logs metrics and keeps files, in an MLflow run or not at all."""

import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol


class Recorder(Protocol):
    """What a training needs of a run; `recdistill.runs.step_runs.StepRun` has it."""

    @property
    def work(self) -> Path:
        """Folder of the checkpoints that a killed training goes on from."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at an epoch."""

    def log_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Keep a folder under ``name``; ``write`` is called with its path, makes and fills it."""

    def log_file(self, path: Path, folder: str) -> None:
        """Keep a file under ``folder``."""

    def log_text(self, name: str, text: str) -> None:
        """Keep a text under ``name``."""

    def tag(self, name: str, value: Any) -> None:
        """Keep a value about the run, by name."""

    def describe(self, text: str) -> None:
        """Set the description of the run, a sentence or more."""


class NoRecorder:
    """A recorder that logs and keeps nothing; its checkpoints are deleted with it. Use one for each training."""

    @cached_property
    def _folder(self) -> "tempfile.TemporaryDirectory[str]":
        return tempfile.TemporaryDirectory(prefix="recdistill-")

    @property
    def work(self) -> Path:
        """A temporary folder."""
        return Path(self._folder.name)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Do nothing."""

    def log_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Do nothing; ``write`` is not called."""

    def log_file(self, path: Path, folder: str) -> None:
        """Do nothing."""

    def log_text(self, name: str, text: str) -> None:
        """Do nothing."""

    def tag(self, name: str, value: Any) -> None:
        """Do nothing."""

    def describe(self, text: str) -> None:
        """Do nothing."""
