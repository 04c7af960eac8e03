"""Relative paths are looked for where the user stands, also where `mlflow run` changes into the project's folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from registered_parts import registries_restored
from small_data import write_csv
from workplace import Workplace, new_store, subprocess_environment

from recdistill.config import STEPS, DistillConfig, ExportConfig, RecommendConfig, StudyConfig, option_table
from recdistill.config import paths as module
from recdistill.config.command_line import parse
from recdistill.config.option import WRITTEN
from recdistill.config.paths import place_to_write
from recdistill.errors import InputError

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where the user stands, and the working folder."""
    there, here = tmp_path / "user", tmp_path / "project"
    there.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(module, "user_folder", lambda: there)
    return there, here


def interactions(value: str) -> str:
    return parse(DistillConfig, "distill", [f"--interactions={value}"]).interactions


def test_a_path_is_looked_for_where_the_user_stands_and_then_here(folders, capsys):
    there, here = folders
    (there / "mine.csv").touch()
    (here / "shipped.csv").touch()
    assert interactions("mine.csv") == str(there / "mine.csv")
    assert interactions("shipped.csv") == "shipped.csv"
    assert capsys.readouterr().out == ""
    (here / "mine.csv").touch()
    assert interactions("mine.csv") == str(there / "mine.csv")
    assert "taken from" in capsys.readouterr().out


def test_a_path_that_is_nowhere_is_named_in_full(folders):
    there, _ = folders
    assert interactions("no/such.csv") == str(there / "no/such.csv")
    assert interactions("/no/such.csv") == "/no/such.csv"
    assert interactions("~/such.csv") == "~/such.csv"
    assert interactions("") == ""


def test_a_user_that_is_not_there_is_one_line(folders):
    with pytest.raises(InputError, match=r"^interactions=~nobody-of-this-name/a.csv: ~ names no user of this machine"):
        interactions("~nobody-of-this-name/a.csv")
    assert interactions("~/a.csv") == "~/a.csv"


def test_a_name_stays_a_name(folders):
    there, _ = folders
    for name in ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M"):
        assert parse(DistillConfig, "distill", [f"--llm={name}"]).llm == name
    (there / "llm").mkdir()
    assert parse(DistillConfig, "distill", ["--llm=llm"]).llm == str(there / "llm")
    assert parse(DistillConfig, "distill", ["--llm=./nowhere"]).llm == str(there / "nowhere")


def test_a_folder_is_no_plan_though_it_has_its_name(folders):
    there, here = folders
    (there / "study").mkdir()
    (here / "study").mkdir()
    assert parse(StudyConfig, "study", ["--plan=study"]).plan == "study"
    (there / "mine.yaml").touch()
    assert parse(StudyConfig, "study", ["--plan=mine.yaml"]).plan == str(there / "mine.yaml")


def test_a_file_to_write_goes_where_the_user_stands(folders):
    there, _ = folders
    assert parse(RecommendConfig, "recommend", []).output == "recommendations.csv"
    assert parse(RecommendConfig, "recommend", ["--output=out.csv"]).output == str(there / "out.csv")
    assert parse(ExportConfig, "export", ["--folder=files"]).folder == str(there / "files")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in STEPS.values()
        for name, one in option_table(kind).items()
        if one.metadata["path"] in WRITTEN
    ],
)
def test_what_stands_in_the_way_of_what_is_written_is_said_before_any_work(kind, name, folders):
    there, _ = folders
    (there / "file").touch()
    (there / "folder").mkdir()
    is_folder = option_table(kind)[name].metadata["path"] == "written-folder"
    wrong = "file" if is_folder else "folder"
    for value, told in (
        (wrong, f"is a {wrong}; give the path of a"),
        ("file/inside", "file is no folder; give another"),
    ):
        with pytest.raises(InputError, match=f"^{name}={there}/{value}: .*{told}"):
            parse(kind, "step", [f"--{name}={value}"])
        with pytest.raises(InputError, match=f"^{name}={there}/{value}: .*{told}"):
            place_to_write(kind(**{name: str(there / value)}), name)
    fitting = "folder" if is_folder else "file"
    for value in (fitting, "new", "no/such/new"):
        assert place_to_write(parse(kind, "step", [f"--{name}={value}"]), name) == there / value


def test_without_mlflow_run_nothing_that_is_there_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "user_folder", lambda: tmp_path)
    (tmp_path / "data.csv").touch()
    assert interactions("data.csv") == "data.csv"
    assert interactions("other.csv") == str(tmp_path / "other.csv")
    assert parse(RecommendConfig, "recommend", ["--output=out.csv"]).output == "out.csv"


def test_a_plugin_s_file_is_looked_for_where_the_user_stands(folders):
    there, _ = folders
    text = "from recdistill.registry import POLICIES\n\n\n@POLICIES.register('beside')\ndef beside(signals): ...\n"
    (there / "parts_beside_the_user.py").write_text(text)
    with registries_restored():
        config = parse(DistillConfig, "distill", ["--plugin=parts_beside_the_user.py,json"])
    assert config.plugin == f"{there}/parts_beside_the_user.py,json"


NO_PATHS = {"plugin", "register", "endpoint", "endpoint_key_variable", "view_endpoint_key", "time_budget"}


def test_every_option_of_a_place_that_is_a_text_is_a_path_or_known_not_to_be():
    for kind in (DistillConfig, RecommendConfig, ExportConfig):
        for name, one in option_table(kind).items():
            if one.role == "place" and one.type is str and not one.metadata["path"]:
                assert name in NO_PATHS


def test_the_folder_of_the_process_is_the_user_s(monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert module.user_folder() == Path.cwd()


def mlflow_run(place: Workplace, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("mlflow"))
    command = [program, "run", str(PROJECT), "-e", "prepare", "--env-manager", "local"]
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [*command, *(part for one in options for part in ("-P", one))],
        env=subprocess_environment(place) | path, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_mlflow_run_from_another_folder(tmp_path):
    (tmp_path / "downloads").mkdir()
    new_store(tmp_path)
    place, user = Workplace(tmp_path, tmp_path / "downloads"), tmp_path / "user"
    user.mkdir()
    write_csv(user)
    done = mlflow_run(place, user, "dataset=csv", "interactions=interactions.csv", "items=./items.csv")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "30 users" in done.stdout + done.stderr
    done = mlflow_run(place, user, "dataset=csv", "interactions=nowhere.csv", "items=items.csv")
    assert done.returncode != 0
    assert f"interactions={user}/nowhere.csv: no such file" in done.stderr


@pytest.mark.parametrize("name", ["a" * 300, "/" + "c" * 300])
@pytest.mark.parametrize("option", ["interactions", "items"])
def test_a_name_that_no_file_can_have_is_refused_while_parsing(option, name):
    with pytest.raises(InputError, match=f"{option}=.*: no file can have this name"):
        parse(DistillConfig, "distill", [f"--{option}={name}"])
