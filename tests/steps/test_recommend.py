import json

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import new_store

from recdistill.config import RecommendConfig
from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.runs.served_model import load_model, log_student_model
from recdistill.runs.step_runs import entry_run
from recdistill.steps.recommend import recommend
from recdistill.students.build import StudentShape, build_student

IDS = [str(item) for item in range(1, 21)]


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory):
    """The run of a student of twenty items, in a store of its own."""
    folder = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.setenv("RECDISTILL_CACHE", str(folder / "cache"))
    patch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(new_store(folder))
    client = MlflowClient()
    found = client.create_run("0", tags={"recdistill.step": "distill"}).info.run_id
    torch.manual_seed(0)
    shape = StudentShape("gru4rec", 8, 0.1, 6, "tied", {"blocks": 1})
    catalogue = Catalogue(tuple(IDS), tuple(f"Film {item}" for item in IDS), np.arange(20))
    log_student_model(found, build_student(shape, 20), shape, catalogue=catalogue, exclude_seen=True)
    client.set_terminated(found)
    yield found
    mlflow.set_tracking_uri(before)
    patch.undo()


@pytest.fixture
def histories(tmp_path):
    path = tmp_path / "histories.jsonl"
    rows = [{"user": "ann", "history": [1, 2]}, {"user": "bob", "history": ["3", "999"], "k": 2}, {"history": []}]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def recommended(**options):
    with entry_run("recommend"):
        return recommend(RecommendConfig(**options))


def test_a_folder_in_the_place_of_the_file_is_said_before_any_work(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(InputError, match=rf"^output={tmp_path}/out.csv: is a folder; give the path of a file to write"):
        recommend(RecommendConfig(histories="nowhere.csv", output=str(tmp_path / "out.csv")))


def test_a_file_of_histories_becomes_a_file_of_items(run_id, histories, tmp_path, capsys):
    output = tmp_path / "out.csv"
    run = recommended(model=run_id, histories=str(histories), output=str(output), k=4)
    rows = pd.read_csv(output, dtype={"item": str})
    expected = load_model(run_id).predict(
        pd.DataFrame({"history": [["1", "2"], ["3", "999"], []], "k": [4, 2, 4]}),
    )
    assert rows.groupby("row")["item"].agg(list).tolist() == expected["items"].tolist()
    assert rows["title"].tolist() == [f"Film {item}" for item in rows["item"]]
    assert rows["user"].fillna("").unique().tolist() == ["ann", "bob", ""]
    assert rows["rank"].tolist() == [1, 2, 3, 4, 1, 2, 1, 2, 3, 4]
    assert "1 unknown items skipped, 1 histories without a known item" in capsys.readouterr().out
    assert run.metrics() == {
        "recommend/histories": 3,
        "recommend/unknown_items": 1,
        "recommend/fallbacks": 1,
        "recommend/recommendations": 10,
    }


def test_the_same_question_is_answered_from_the_run_before(run_id, histories, tmp_path):
    first = recommended(histories=str(histories), output=str(tmp_path / "a.parquet"))
    again = recommended(model=f"runs:/{run_id}/model", histories=str(histories), output=str(tmp_path / "b.parquet"))
    assert (again.run_id, again.reused) == (first.run_id, True)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    histories.write_text('{"history": ["5"]}')
    assert recommended(histories=str(histories), output=str(tmp_path / "c.csv")).run_id != first.run_id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"histories": ""}, "histories=: must end in"),
        ({"output": "out.xlsx"}, "output=out.xlsx: must end in"),
        ({"output": "no/such/folder/out.csv"}, "there is no folder no/such/folder"),
        ({"model": "models:/nothing/1"}, "model=models:/nothing/1: no model"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(run_id, histories, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        recommended(**({"histories": str(histories)} | options))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["histories.jsonl"]
