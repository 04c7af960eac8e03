"""A place to run steps in: a tracking store, a cache and a working folder of its own."""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from recdistill.__main__ import main
from recdistill.data.downloads import cache_dir, fetch_wheel_member
from recdistill.data.pinned_models import PinnedModel
from recdistill.data.sources.ml_100k import FOLDER, RECBOLE

# SHA-256 of the files in the pinned wheels: a cache that holds others neither makes nor breaks a test.
MEMBERS = {
    f"{FOLDER}/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    f"{FOLDER}/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


@dataclass(frozen=True)
class Workplace:
    """Everything of it lies in ``folder``; ``downloads`` is what pinned wheels are read from."""

    folder: Path
    downloads: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process work here."""
        return {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "RECDISTILL_CACHE": str(self.folder / "cache"),
        }

    @contextmanager
    def entered(self) -> Iterator[MlflowClient]:
        """This process works here."""
        cache = self.folder / "cache"
        cache.mkdir(exist_ok=True)
        for source in self.downloads.iterdir():
            if not (cache / source.name).exists():
                (cache / source.name).symlink_to(source)
        patch = pytest.MonkeyPatch()
        before = mlflow.get_tracking_uri()
        patch.chdir(self.folder)
        mlflow.set_tracking_uri(self.environment["MLFLOW_TRACKING_URI"])
        for name, value in self.environment.items():
            patch.setenv(name, value)
        try:
            yield MlflowClient()
        finally:
            patch.undo()
            mlflow.set_tracking_uri(before)

    def newest(self, step: str = "") -> Run:
        """The run that began last, of a step where given; a control is nobody's newest."""
        condition = f"tags.`recdistill.step` = '{step}'" if step else ""
        found = MlflowClient().search_runs(["0"], condition, order_by=["attributes.start_time DESC"])
        return next(run for run in found if "recdistill.control" not in run.data.tags)

    def checkpoints(self, name: str) -> list[Path]:
        """Checkpoints of unfinished steps, by the name of their file."""
        return list((self.folder / "cache" / "runs").glob(f"*/{name}"))


@cache
def empty_store() -> tempfile.TemporaryDirectory[str]:
    """Holds a tracking store without runs, ``mlflow.db``; its tables take seconds to make."""
    folder = tempfile.TemporaryDirectory()
    MlflowClient(f"sqlite:///{folder.name}/mlflow.db").get_experiment("0")
    return folder


def new_store(folder: Path) -> str:
    """The address of a new tracking store without runs in ``folder``, where its artifacts lie, too."""
    database = folder / "mlflow.db"
    shutil.copy(Path(empty_store().name) / database.name, database)
    with closing(sqlite3.connect(database)) as copy:
        copy.execute("UPDATE experiments SET artifact_location = ?", (f"{folder}/mlruns/0",))
        copy.commit()
    return f"sqlite:///{database}"


@contextmanager
def copied_workplace(folder: Path, downloads: Path) -> Iterator[Workplace]:
    """A new folder with a store without runs, entered."""
    folder.mkdir()
    new_store(folder)
    made = Workplace(folder, downloads)
    with made.entered():
        yield made


def arguments(step: str, options: dict[str, object]) -> list[str]:
    """A command line of ``python -m recdistill``."""
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items()}
    return [step, *(f"--{name}={text}" for name, text in texts.items())]


def run_step(step: str, **options: object) -> int:
    """Run a step in this process as the command line does; its exit status."""
    return main(arguments(step, options))


def make_downloads(folder: Path, members: list[tuple[str, str, str, str]]) -> Path:
    """The files of pinned wheels, out of the user's cache where they are there unchanged, else downloaded."""
    for package, version, sha256, member in members:
        target = folder / f"{package}-{version}-{sha256[:12]}" / Path(member).name
        if target.is_file():
            continue
        cached = cache_dir() / target.parent.name / target.name
        if cached.is_file() and digest(cached) == MEMBERS[member]:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(cached)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RECDISTILL_CACHE", str(folder))
                fetch_wheel_member(package, version, sha256, member)
        assert digest(target) == MEMBERS[member]
    return folder


def add_model(folder: Path, model: PinnedModel) -> None:
    """The file of a pinned model among the downloads, out of the user's cache where it is there, else downloaded."""
    target = folder / model.path.relative_to(cache_dir())
    if model.path.is_file() and digest(model.path) == model.sha256:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(model.path)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECDISTILL_CACHE", str(folder))
            model.fetch()
    assert digest(target) == model.sha256


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ml100k_files() -> list[tuple[str, str, str, str]]:
    """What MovieLens-100K is read from."""
    return [(*RECBOLE, f"{FOLDER}/ml-100k.{kind}") for kind in ("inter", "item")]


def subprocess_environment(place: Workplace) -> dict[str, str]:
    """The environment of a process that works in a place: this one's, less what a run leaves in it."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    return kept | place.environment | {"OMP_NUM_THREADS": "1"}
