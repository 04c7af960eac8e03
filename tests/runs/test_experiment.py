"""The experiment that runs go to, and what MLflow's UI makes of it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from mlflow_server import mlflow_server

from recdistill.config import BaselineConfig
from recdistill.runs.experiment import (
    DESCRIPTION,
    EXPERIMENT,
    KIND,
    NAMED_BY,
    NOTE,
    PRIMARY_METRIC,
    VIEW_NAME,
    VIEW_TAG,
    describe_experiment,
    how_to_open,
    main,
    models_path,
    runs_path,
)
from recdistill.runs.finished_runs import find_finished
from recdistill.runs.logged_models import log_teacher, new_mark
from recdistill.runs.run import KEY, StepRun
from recdistill.runs.step_runs import entry_run, step_run

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"mlflow run (?:\\\n|[^\n`#\"])*")


@pytest.fixture
def unnamed(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A user who names no experiment."""
    for name in NAMED_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    return client


def ran(step: str = "backbone", fingerprint: str = "e" * 64) -> str:
    """Id of a run of a step."""
    with entry_run(step), step_run(step, BaselineConfig(hidden_size=16), data=fingerprint) as run:
        run.log_text("note.txt", "kept")
    return run.run_id


def test_runs_go_to_our_experiment_and_its_page_says_how_to_read_them(unnamed, capsys) -> None:
    run = unnamed.get_run(ran())
    experiment = unnamed.get_experiment(run.info.experiment_id)
    assert experiment.name == EXPERIMENT
    assert experiment.tags[KIND] == "custom_model_development"
    assert experiment.tags[PRIMARY_METRIC] == "test/ndcg_at_20"
    assert experiment.tags[NOTE] == DESCRIPTION
    assert runs_path(experiment.experiment_id) in capsys.readouterr().out
    again = unnamed.get_run(ran(fingerprint="f" * 64))
    assert again.info.experiment_id == run.info.experiment_id


def test_steps_within_the_run_go_to_its_experiment(unnamed) -> None:
    config = BaselineConfig()
    with (
        entry_run("main"),
        step_run("main", config, data="a" * 64) as outer,
        step_run("backbone", config, data="a" * 64) as inner,
    ):
        pass
    outer_place, inner_place = (unnamed.get_run(run.run_id).info.experiment_id for run in (outer, inner))
    assert inner_place == outer_place
    with step_run("backbone", BaselineConfig(), data="b" * 64) as alone:
        pass
    assert unnamed.get_run(alone.run_id).info.experiment_id == outer_place


def test_who_names_an_experiment_has_it(unnamed, monkeypatch) -> None:
    mine = unnamed.create_experiment("mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert unnamed.get_run(ran(fingerprint="1" * 64)).info.experiment_id == mine
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", mine)
    assert unnamed.get_run(ran(fingerprint="2" * 64)).info.experiment_id == mine


def test_an_open_run_keeps_its_experiment(unnamed) -> None:
    mine = unnamed.create_experiment("another of mine")
    with mlflow.start_run(experiment_id=mine), step_run("backbone", BaselineConfig(), data="3" * 64) as run:
        pass
    assert unnamed.get_run(run.run_id).info.experiment_id == mine


def test_the_run_of_mlflow_run_stays_where_it_is(unnamed, monkeypatch) -> None:
    mine = unnamed.create_experiment("opened before")
    opened = unnamed.create_run(mine)
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    assert ran(fingerprint="4" * 64) == opened.info.run_id
    assert unnamed.get_experiment(mine).tags[KIND] == "custom_model_development"
    assert NOTE not in unnamed.get_experiment(mine).tags


def test_tags_that_are_there_stay(unnamed) -> None:
    mine = unnamed.create_experiment("with tags", tags={KIND: "genai_development", PRIMARY_METRIC: "loss"})
    describe_experiment(unnamed.get_experiment(mine))
    tags = unnamed.get_experiment(mine).tags
    assert (tags[KIND], tags[PRIMARY_METRIC]) == ("genai_development", "loss")
    assert VIEW_TAG in tags


def test_a_finished_run_of_the_default_experiment_is_found(unnamed) -> None:
    old = unnamed.create_run("0", tags={KEY: "a key of before"})
    unnamed.log_text(old.info.run_id, "kept", "note.txt")
    unnamed.set_terminated(old.info.run_id)
    found = find_finished("a key of before")
    assert found is not None
    assert found.info.run_id == old.info.run_id


def test_the_view_has_the_form_that_the_ui_reads(unnamed) -> None:
    ran(fingerprint="5" * 64)
    view = json.loads(unnamed.get_experiment_by_name(EXPERIMENT).tags[VIEW_TAG])
    assert (view["name"], type(view["createdAt"])) == (VIEW_NAME, int)
    state = json.loads(view["state"])
    assert state["orderByKey"] == "metrics.`test/ndcg_at_20`"
    assert "metrics.`test/hr_at_10`" in state["selectedColumns"]
    assert len(unnamed.get_experiment_by_name(EXPERIMENT).tags[VIEW_TAG]) < 5000


def test_the_address_names_the_command_or_the_server(unnamed, monkeypatch) -> None:
    assert how_to_open("7").startswith("mlflow ui --backend-store-uri sqlite:///")
    monkeypatch.setattr("recdistill.runs.experiment.tracking_address", lambda: "https://tracking:5000/")
    assert how_to_open("7") == "https://tracking:5000" + runs_path("7")


def test_make_ui_says_where_the_runs_are(unnamed, capsys) -> None:
    ran(fingerprint="6" * 64)
    main()
    said, place = capsys.readouterr().out, unnamed.get_experiment_by_name(EXPERIMENT).experiment_id
    assert runs_path(place) in said
    assert models_path(place) in said


def documents() -> list[Path]:
    """Whatever tells a person a command."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.ipynb"), ROOT / "Makefile"]
    return [path for path in found if "mlflow run " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_each_command_of_a_document_names_the_experiment(document: Path) -> None:
    for command in COMMAND.findall(document.read_text(encoding="utf-8")):
        if " -e " in command:
            assert "--experiment-name recdistill" in command, command


def test_documents_with_commands_are_found() -> None:
    assert {"README.md", "Makefile", "SWEEPS.md"} <= {path.name for path in documents()}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="apt-get install chromium")
def test_the_address_opens_the_runs_best_first_with_their_columns(tmp_path: Path) -> None:
    with mlflow_server(tmp_path / "server") as server:
        client = MlflowClient(server.uri)
        place = client.create_experiment(EXPERIMENT)
        values = {"worst": 0.1, "best": 0.3, "middle": 0.2}
        for name, value in values.items():
            run = client.create_run(place, run_name=name)
            client.log_metric(run.info.run_id, "test/ndcg_at_20", value)
            client.log_metric(run.info.run_id, "test/hr_at_10", value)
            client.set_terminated(run.info.run_id)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(server.uri)
        try:
            describe_experiment(client.get_experiment(place))
            page = dom(how_to_open(place), tmp_path, VIEW_NAME, *values)
            mark = new_mark()
            log_teacher(run.info.run_id, mark)
            measured = StepRun(run.info.run_id, "", "", reused=False)
            measured.log_metrics({"test/mrr": 0.5}, model=mark, datasets={"test": ("films test", "d" * 32)})
            models = dom(server.uri + models_path(place), tmp_path, "test/mrr", "middle")
        finally:
            mlflow.set_tracking_uri(before)
    text = html.unescape(re.sub(r"<[^>]*>", "\n", page))
    assert VIEW_NAME in text
    assert "test/ndcg_at_20" in text
    assert "test/hr_at_10" in text
    # Grid rows carry their number; their order in the page is free.
    rows = {
        name: int(re.search(rf'row-index="(\d+)"(?:(?!row-index).)*>{name}<', page, re.DOTALL)[1]) for name in values
    }
    assert sorted(rows, key=rows.__getitem__) == ["best", "middle", "worst"]
    # The models' charts are by data set; a model is called as its run.
    shown = html.unescape(re.sub(r"<[^>]*>", "\n", models))
    for name in ("films test", "test/mrr", "middle"):
        assert name in shown


def dom(address: str, folder: Path, *awaited: str) -> str:
    """What Chromium has made of a page once nothing more happens, by a clock of its own that busy machines outlast."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1700,900"]
    command += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=60000", "--dump-dom", address]
    for _ in range(5):
        page = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        if all(text in page for text in awaited):
            break
    return page
