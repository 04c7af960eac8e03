"""``retire_items`` and ``export format=onnx``: a served student without some items, and outside of MLflow."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import copied_workplace

from recdistill.config import ExportConfig, RetireItemsConfig
from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.runs.served_model import load_model, log_student_model, recommendations, student_folder
from recdistill.runs.step_runs import step_run
from recdistill.steps.export import export
from recdistill.steps.retire_items import retire_items
from recdistill.students.build import StudentShape, build_student
from recdistill.students.catalogue_file import read_catalogue

IDS = [f"i{item}" for item in range(12)]
SHAPE = StudentShape("sasrec", 8, 0.1, 6, "tied", {"blocks": 1, "heads": 1})
HISTORIES = pd.DataFrame({"history": [["i1", "i2"], ["i5"], []], "k": [12, 12, 12]})


@pytest.fixture(scope="module")
def place(tmp_path_factory, downloads):
    with copied_workplace(tmp_path_factory.mktemp("retire_items") / "place", downloads) as made:
        yield made


@pytest.fixture(scope="module")
def model(place):
    """Address of a student of random weights."""
    torch.manual_seed(0)
    catalogue = Catalogue(tuple(IDS), tuple(IDS), np.arange(12)[::-1].copy())
    with step_run("retire_items", RetireItemsConfig(model="made up"), data="made up") as run:
        return log_student_model(
            run.run_id, build_student(SHAPE, 12).eval(), SHAPE, catalogue=catalogue, exclude_seen=True
        )


def retired(model: str, folder, *items: str, **options):
    path = folder / "gone.csv"
    path.write_text("item\n" + "".join(f"{item}\n" for item in items))
    return retire_items(RetireItemsConfig(model=model, items=str(path), **options))


def items_of(model: str) -> list[list[str]]:
    return recommendations(load_model(model), HISTORIES)["items"].tolist()


def test_retired_items_are_not_recommended_and_the_others_stay_as_they_were(model, place, tmp_path):
    before = items_of(model)
    run = retired(model, tmp_path, "i0", "i5", register="shop")
    assert items_of(run.run_id) == [[item for item in row if item not in ("i0", "i5")] for row in before]
    assert items_of("models:/shop/1") == items_of(run.run_id)
    said = MlflowClient().get_model_version("shop", "1").description
    assert "**Compared with** nothing, as nothing was measured of it." in said
    assert f"2 items of the student {model} retired" in said
    again = retired("models:/shop/1", tmp_path, "i3")
    assert items_of("models:/shop/2") == items_of(again.run_id)
    assert read_catalogue(student_folder(again.run_id)[0])[0].retired.tolist() == [0, 3, 5]
    back = retired(again.run_id, tmp_path, "i0", "i3", "i5", restore=True)
    assert items_of(back.run_id) == before
    assert retired(model, tmp_path, "i0", "i5", register="shop").reused


@pytest.mark.parametrize(
    ("items", "options", "told"),
    [
        (["i1", "nowhere"], {}, "row 2: the student has no item 'nowhere'"),
        (["i1"], {"restore": True}, "'i1' is not retired"),
        (IDS, {}, "no item would be left"),
    ],
)
def test_bad_lists_are_refused(model, place, tmp_path, items, options, told):
    with pytest.raises(InputError, match=told):
        retired(model, tmp_path, *items, **options)


def test_what_is_retired_already_is_refused(model, place, tmp_path):
    run = retired(model, tmp_path, "i4")
    with pytest.raises(InputError, match="'i4' is retired already"):
        retired(run.run_id, tmp_path, "i4", "i6")


def test_a_student_is_exported_as_onnx(model, place, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    run = export(ExportConfig(format="onnx", model=model, folder=str(tmp_path / "out")))
    assert run.metrics()["export/largest_difference"] <= 1e-5
    catalogue = json.loads((tmp_path / "out" / "catalogue.json").read_text())
    session = runtime.InferenceSession(tmp_path / "out" / "student.onnx")
    history = np.array([[1, 2, 12], [5, 12, 12]])
    (scores,) = session.run(None, {"history": history, "length": np.array([2, 1])})
    for row, seen in ((0, [1, 2]), (1, [5])):
        scores[row, seen] = -np.inf
        best = [catalogue["item_ids"][item] for item in np.argsort(-scores[row])[: 12 - len(seen)]]
        assert best == items_of(model)[row]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "onnx", "teacher_run_id": "x"}, "teacher_run_id=x: is of format=dllm2rec"),
        ({"model": "x"}, "model=x: is of format=onnx"),
    ],
)
def test_options_of_another_format_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        export(ExportConfig(folder="out", **options))


def test_a_file_in_the_place_of_the_folder_is_said_before_any_work(tmp_path):
    (tmp_path / "out").touch()
    for form in ("onnx", "dllm2rec"):
        with pytest.raises(InputError, match=rf"^folder={tmp_path}/out: is a file; give the path of a folder to write"):
            export(ExportConfig(format=form, folder=str(tmp_path / "out")))
