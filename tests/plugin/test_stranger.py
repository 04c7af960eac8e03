"""A stranger's student, policy, source, metric and loss term in one file: trained, swept, run by MLflow, served."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from tiny_llm import write_tiny_llm
from workplace import Workplace, arguments, subprocess_environment

from recdistill.runs.served_model import load_model

PROJECT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("parts_of_a_stranger.py")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A distillation in which every part is the stranger's."""
    folder = tmp_path_factory.mktemp("stranger")
    teacher = {"llm": write_tiny_llm(folder / "llm"), "teacher_window": 8, "teacher_history": 3, "top_n": 10}
    teacher |= {"token_budget": 1000, "tokens_per_batch": 300}
    student = {
        "student": "decayed_mean",
        "decay": 0.7,
        "hidden_size": 8,
        "epochs": 2,
        "margin_weight": 0.1,
        "margin": 0.5,
    }
    policy = {"selection_policy": "late_losers", "selection_fraction": 0.5}
    return {"plugin": FILE, "dataset": "ring", **teacher, **student, **policy}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, options: dict[str, object]) -> Iterator[Workplace]:
    """A place where that distillation has run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "downloads").mkdir()
    made = Workplace(folder, folder / "downloads")
    with made.entered():
        assert run(made, "distill", **options) == ""
        yield made


def run(place: Workplace, step: str, **given: object) -> str:
    """Run a step in a process of its own, in which nothing is registered yet; what it says of an error."""
    command = [sys.executable, "-m", "recdistill", *arguments(step, given)]
    environment = subprocess_environment(place) | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


def test_a_stranger_edits_nothing_of_ours() -> None:
    assert "recdistill import LOSS_TERMS" in FILE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_is_trained_with_its_own_options_metric_and_loss(place: Workplace) -> None:
    found = place.newest("distill")
    assert (found.data.params["student"], found.data.params["decay"]) == ("decayed_mean", "0.7")
    metrics = found.data.metrics
    assert 0 <= metrics["test/within_at_3"] <= metrics["test/within_at_10"] <= 1
    assert metrics["train/margin"] >= 0
    assert metrics["train/distilled_share"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_its_content_is_in_the_key(place: Workplace, options: dict[str, object]) -> None:
    artifact = place.newest("distill").info.artifact_uri
    parts = json.loads(Path(mlflow.artifacts.download_artifacts(f"{artifact}/key.json")).read_text())
    assert {"student decayed_mean", "selection policy late_losers", "loss term margin"} <= set(parts["options"])
    copied = shutil.copy(FILE, place.folder / "edited_parts.py")
    assert run(place, "distill", **options | {"plugin": copied}) == ""
    assert "recdistill.reused_run_id" in place.newest("distill").data.tags
    with Path(copied).open("a", encoding="utf-8") as file:
        file.write("\n# Another content.\n")
    assert run(place, "distill", **options | {"plugin": copied}) == ""
    assert "recdistill.reused_run_id" not in place.newest("distill").data.tags


@pytest.mark.slow
def test_a_sweep_searches_its_options(place: Workplace, options: dict[str, object]) -> None:
    space = {
        "objective": "val/within_at_10",
        "parameters": {
            "decay": {"low": 0.3, "high": 0.9},
            "margin_weight": {"low": 0.0, "high": 1.0},
            "selection_policy": {"choices": ["late_losers", "uncertainty"]},
        },
    }
    file = place.folder / "space.yaml"
    file.write_text(yaml.safe_dump(space), encoding="utf-8")
    kept = {name: value for name, value in options.items() if name not in ("decay", "margin_weight", "margin")}
    del kept["selection_policy"]
    assert run(place, "sweep", **kept, space=file, trials=3, final_seeds=0, jobs=2) == ""
    found = place.newest("sweep")
    assert found.data.metrics["val/within_at_10"] > 0
    assert 0.3 <= float(found.data.tags["recdistill.best.decay"]) <= 0.9


@pytest.mark.slow
def test_it_is_compared_by_its_metric(place: Workplace, options: dict[str, object]) -> None:
    again = {name: value for name, value in options.items() if not str(name).startswith("margin")}
    assert run(place, "distill", **again) == ""
    ids = [
        one.info.run_id
        for one in mlflow.search_runs(output_format="list", filter_string="tags.`recdistill.step` = 'distill'")
    ]
    assert run(place, "compare", runs=",".join(ids[:2]), metric="test/within_at_10", plugin=FILE, resamples=100) == ""
    found = place.newest("compare")
    assert (found.data.metrics["compare/samples"], found.data.params["metric"]) == (40, "test/within_at_10")


@pytest.mark.slow
def test_it_is_served_where_the_plugin_is_not(place: Workplace) -> None:
    (found,) = mlflow.search_runs(
        output_format="list", filter_string="params.decay = '0.7' and params.margin = '0.5'", max_results=1
    )
    histories = pd.DataFrame({"history": [["place-3", "place-4"], ["nowhere"]]})
    here = load_model(found.info.run_id).predict(histories)
    program = (
        f"import sys, json, mlflow, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model('runs:/{found.info.run_id}/model')\n"
        "answer = model.predict(pd.DataFrame({'history': [['place-3', 'place-4'], ['nowhere']]}))\n"
        "print(json.dumps(answer['items'].tolist()))\n"
        "assert 'parts_of_a_stranger' not in sys.modules or 'artifacts' in sys.modules['parts_of_a_stranger'].__file__"
    )
    environment = {name: value for name, value in subprocess_environment(place).items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer == [list(items) for items in here["items"]]
    assert len(answer[0]) == 10


@pytest.mark.slow
def test_mlflow_run_takes_it(place: Workplace, options: dict[str, object]) -> None:
    given = [part for name, value in (options | {"seed": 2}).items() for part in ("-P", f"{name}={value}")]
    command = [
        str(Path(sys.executable).with_name("mlflow")),
        "run",
        str(PROJECT),
        "-e",
        "distill",
        "--env-manager",
        "local",
    ]
    environment = subprocess_environment(place)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run([*command, *given], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = place.newest("distill")
    assert (found.data.params["decay"], found.data.params["seed"]) == ("0.7", "2")
    assert found.data.metrics["test/within_at_10"] > 0


@pytest.mark.slow
def test_a_mistake_names_the_stranger_s_options(place: Workplace, options: dict[str, object]) -> None:
    assert "decay=2.0: must be at most 1" in run(place, "distill", **options | {"decay": 2.0})
    said = run(place, "distill", **options | {"student": "sasrec"})
    assert "decay=0.7: is of student=decayed_mean; set that, or leave decay out" in said
    without = {name: value for name, value in options.items() if name != "plugin"}
    assert "dataset=ring: must be one of" in run(place, "distill", **{"dataset": "ring"}) or without
