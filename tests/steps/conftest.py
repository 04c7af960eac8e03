"""Places to run steps in, and one where the whole path has run on forty MovieLens users over the tiny llama."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from mlflow.tracking import MlflowClient
from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import Workplace, copied_workplace, make_downloads, ml100k_files, new_store, run_step

from recdistill.steps import results


@contextmanager
def no_drawing() -> Iterator[None]:
    """Runs draw no slices, which the tests of `report` look at: they take longer than many a step."""
    with patch.object(results, "slice_figure", lambda tables, title: b"a picture"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _no_drawing() -> Iterator[None]:
    with no_drawing():
        yield


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama, for ``llm=``."""
    return write_tiny_llm(tmp_path_factory.mktemp("tiny_llm"))


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K, fetched once a session and checked."""
    return make_downloads(tmp_path_factory.mktemp("downloads"), ml100k_files())


@pytest.fixture
def place(tmp_path: Path, downloads: Path) -> Iterator[Workplace]:
    """An empty place; this process is in it."""
    with copied_workplace(tmp_path / "place", downloads) as made:
        yield made


@pytest.fixture(scope="session")
def tiny_teacher(tiny_llm_folder: Path) -> dict[str, object]:
    """Options of a teacher that takes seconds."""
    return {
        "llm": tiny_llm_folder,
        "teacher_window": 20,
        "teacher_history": 5,
        "token_budget": 4000,
        "tokens_per_batch": 500,
        "llm_learning_rate": 0.01,
        "outputs_token_budget": 20000,
        "top_n": 20,
    }


@pytest.fixture(scope="session")
def tiny_student() -> dict[str, object]:
    """Options of a student that takes seconds; not those of the frozen backbone."""
    return {"hidden_size": 16, "blocks": 1, "max_length": 20, "epochs": 3, "patience": 3, "dropout": 0.2}


@dataclass(frozen=True)
class Finished:
    """A place where ``main`` has run: with which options, what it printed, and its run's id."""

    place: Workplace
    options: dict[str, object]
    printed: str
    run_id: str


@pytest.fixture(scope="session")
def finished_main(
    tmp_path_factory: pytest.TempPathFactory,
    downloads: Path,
    tiny_teacher: dict[str, object],
    tiny_student: dict[str, object],
) -> Finished:
    """The whole path on forty users of MovieLens-100K."""
    place = Workplace(tmp_path_factory.mktemp("finished"), downloads)
    new_store(place.folder)
    options = {"max_users": 40, **tiny_teacher, **tiny_student}
    printed = io.StringIO()
    with place.entered(), redirect_stdout(printed):
        assert run_step("main", **options) == 0
        run_id = place.newest("main").info.run_id
    return Finished(place, options, printed.getvalue(), run_id)


@pytest.fixture
def finished(finished_main: Finished) -> Iterator[Finished]:
    """That place; this process is in it. Tests may add runs."""
    with finished_main.place.entered():
        yield finished_main


@pytest.fixture
def client() -> MlflowClient:
    """Of the place at hand."""
    return MlflowClient()


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The options that read a small data set of one's own."""
    return write_csv(tmp_path_factory.mktemp("small"))


@dataclass(frozen=True)
class Taught:
    """A place with a teacher of the small data set: its options and its run's id."""

    place: Workplace
    options: dict[str, object]
    run_id: str


@pytest.fixture(scope="session")
def taught_place(
    tmp_path_factory: pytest.TempPathFactory, downloads: Path, tiny_llm_folder: Path, small_files: dict[str, str]
) -> Taught:
    """A teacher that scored every training sample and kept its states of them."""
    place = Workplace(tmp_path_factory.mktemp("taught"), downloads)
    new_store(place.folder)
    options = {
        **small_files,
        "llm": tiny_llm_folder,
        "teacher_window": 10,
        "teacher_history": 4,
        "token_budget": 3000,
        "tokens_per_batch": 300,
        "top_n": 12,
        "sequence_embeddings": True,
    }
    # Fixtures of the session are made before those of a module.
    with place.entered(), no_drawing():
        assert run_step("teacher", **options) == 0
        run_id = place.newest("teacher").info.run_id
    return Taught(place, options, run_id)


@pytest.fixture
def taught(taught_place: Taught) -> Iterator[Taught]:
    """That place; this process is in it. Tests may add runs."""
    with taught_place.place.entered():
        yield taught_place
