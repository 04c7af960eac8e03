"""What a user gives wrongly: one line, a non-zero exit, and a run marked FAILED with the reason."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from small_data import options_of, write_csv
from workplace import Workplace, arguments, new_store, run_step, subprocess_environment

from recdistill.runs.step_runs import FINGERPRINT, KEY, REASON, STEP

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    new_store(tmp_path)
    (tmp_path / "downloads").mkdir()
    place = Workplace(tmp_path, tmp_path / "downloads")
    with place.entered():
        yield place


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def no_file(folder: Path) -> None:
    (folder / "interactions.csv").unlink()


def no_column(folder: Path) -> None:
    replace(folder / "interactions.csv", "timestamp", "when")


def header_twice(folder: Path) -> None:
    replace(folder / "interactions.csv", "user,item,timestamp", "user,item,item,timestamp")


def no_time(folder: Path) -> None:
    with (folder / "interactions.csv").open("a", encoding="utf-8") as file:
        file.write("u1,i1,NaN\n")


def unknown_item(folder: Path) -> None:
    with (folder / "interactions.csv").open("a", encoding="utf-8") as file:
        file.write("u1,nowhere,5\n")


FILES = {
    no_file: "no such file; give the path of a file",
    no_column: "has no column 'timestamp'",
    header_twice: "column 'item' stands twice in the header",
    no_time: "timestamp 'NaN' is no whole number",
    unknown_item: "unknown item 'nowhere'",
}


def refused(place: Workplace, capsys: pytest.CaptureFixture[str], step: str, **options: object) -> str:
    """The one line that a step says; its run is FAILED and says it too."""
    assert run_step(step, **options) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert said.startswith(f"recdistill {step}: ")
    run = place.newest()
    assert run.info.status == "FAILED"
    assert run.data.tags[REASON] in said
    return said


@pytest.mark.parametrize("spoil", FILES, ids=lambda spoil: spoil.__name__)
def test_bad_files(place, capsys, spoil):
    options = write_csv(place.folder)
    spoil(place.folder)
    assert FILES[spoil] in refused(place, capsys, "prepare", **options, missing_titles="refuse")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": -0.5}, "lam=-0.5: must be at least 0"),
        ({"temperature": 0}, "temperature=0.0: must be greater than 0"),
        ({"lam": "abc"}, "lam=abc: must be a number"),
        ({"lamb": 0.5}, "lamb: distill has no such option; the nearest is lam"),
        ({"student": "bert4rec"}, "student=bert4rec: must be one of caser, esasrec, gru4rec, sasrec (nearest: "),
        ({"selection_policy": "random"}, "chooses nothing at selection_fraction=1; give selection_fraction below 1"),
        ({"teacher_run_id": "0" * 32}, "no such run"),
        ({"teacher_files": "nowhere"}, "nowhere"),
    ],
)
def test_bad_options(place, capsys, options, message):
    # Should it go on, it must not begin with the real LLM.
    options = write_csv(place.folder) | {"llm": "/no/such/model"} | options
    assert message in refused(place, capsys, "distill", **options)


def teacher_run(status: str, fingerprint: str, step: str = "teacher") -> str:
    client = MlflowClient()
    run_id = client.create_run("0", tags={STEP: step, KEY: "k", FINGERPRINT: fingerprint}).info.run_id
    client.set_terminated(run_id, status)
    return run_id


@pytest.mark.parametrize("step", ["main", "worth", "sweep"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_files": "nowhere"}, "nowhere: no such folder"),
        ({"teacher_run_id": "0" * 32}, "no such run"),
        ({"teacher_files": "nowhere", "teacher_run_id": "0" * 32}, "give one of them, not both"),
        ({"backbone_run_id": "0" * 32}, "no such run"),
        ({"llm": "/no/such/model"}, "llm=/no/such/model: no such file or folder"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_told_before_anything_is_trained(place, capsys, step, options, message):
    count = len(place.checkpoints("*"))
    assert message in refused(place, capsys, step, **write_csv(place.folder) | {"epochs": 1} | options)
    trained = MlflowClient().search_runs(
        [one.experiment_id for one in MlflowClient().search_experiments()],
        "tags.`recdistill.step` = 'backbone' and attributes.status = 'FINISHED'",
    )
    assert trained == []
    assert len(place.checkpoints("*")) == count


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (("FAILED", "f" * 64), "is FAILED, not FINISHED; choose a finished run"),
        (("FINISHED", "f" * 64), "was made for data ffffffffffff, not for this data"),
        (("FINISHED", "f" * 64, "backbone"), "is a backbone run, not a teacher run"),
    ],
)
def test_a_teacher_that_does_not_fit(place, capsys, made, message):
    options = write_csv(place.folder)
    teacher = teacher_run(*made)
    said = refused(place, capsys, "distill", **options, teacher_run_id=teacher)
    assert f"teacher_run_id={teacher}: {message}" in said


@pytest.mark.slow
def test_a_process_of_its_own_says_no_more(place):
    write_csv(place.folder)
    done = subprocess.run(
        [sys.executable, "-m", "recdistill", *arguments("distill", {**options_of(place.folder), "lam": -1})],
        env=subprocess_environment(place),
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "recdistill distill: lam=-1.0: must be at least 0"


def test_a_python_without_its_packages_says_so_in_one_line():
    # As when `mlflow run` finds another python first on the PATH.
    command = [sys.executable, "-S", "-m", "recdistill", "main"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"recdistill: {sys.executable} has no ")
    assert line.endswith("activate the environment it is installed in, as .venv")


@pytest.mark.slow
def test_an_mlflow_project_run_fails_with_the_reason(place):
    program = str(Path(sys.executable).with_name("mlflow"))
    path = {"PATH": f"{Path(sys.executable).parent}:{subprocess_environment(place)['PATH']}"}
    done = subprocess.run(
        [program, "run", str(PROJECT), "-e", "distill", "--env-manager", "local", "-P", "temperatur=2"],
        env=subprocess_environment(place) | path,
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "temperatur: distill has no such option; the nearest is temperature" in done.stderr
    run = place.newest()
    assert run.info.status == "FAILED"
    assert run.data.tags[REASON] == "temperatur: distill has no such option; the nearest is temperature"
