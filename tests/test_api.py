"""The Python interface where no other test has it: a teacher's gate, and the model of a run of one's own."""

import io
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from small_teachers import small, small_backbone, tiny_teacher
from workplace import Workplace

import recdistill as rd

EXPERTS = [f"expert_{expert}" for expert in range(4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> rd.SequenceData:
    return small(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: rd.SequenceData) -> rd.TrainedTeacher:
    teacher = tiny_teacher(data, small_backbone(data))
    return rd.TrainedTeacher(teacher, teacher.config, data)


def test_the_states_of_users_are_those_that_the_gate_reads(data: rd.SequenceData, trained: rd.TrainedTeacher) -> None:
    users, states = trained.user_states()
    assert list(users.columns) == ["user", "history"]
    assert sorted(users["user"]) == sorted(data.user_ids)
    assert not states.requires_grad
    place = data.user_ids.index(users["user"][3])
    (sample,) = np.flatnonzero(data.test.user == place)
    read = data.test.items[data.test.start[sample] : data.test.end[sample]][-trained.model.backbone.max_length :]
    assert users["history"][3] == [data.item_ids[item] for item in read]
    by_user, _ = trained.gate_tables()
    assert by_user["user"].tolist() == users["user"].tolist()
    np.testing.assert_allclose(by_user[EXPERTS], trained.model.gate_weights(states), atol=1e-6)


def test_the_gates_plot_is_a_picture_of_its_clusters(trained: rd.TrainedTeacher) -> None:
    _, clusters = trained.gate_tables()
    picture = matplotlib.image.imread(io.BytesIO(trained.gate_plot()), format="png")
    height, width, _ = picture.shape
    assert min(height, width) > 30 * len(clusters)
    assert picture.std() > 0


def test_a_teacher_without_a_gate_says_so(data: rd.SequenceData, trained: rd.TrainedTeacher) -> None:
    model = SimpleNamespace(data=data, backbone=trained.model.backbone, gate_weights=lambda states: None)
    other = rd.TrainedTeacher(model, trained.config, data)
    for asked in (other.gate_tables, other.gate_plot):
        with pytest.raises(rd.InputError, match="teacher=ranking: has no gate"):
            asked()
    assert len(other.user_states()[0]) == len(data.user_ids)


def test_a_student_is_logged_as_the_model_of_the_active_run(tmp_path: Path, data: rd.SequenceData) -> None:
    student = rd.train_student(data, student="itemknn")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with Workplace(tmp_path, downloads).entered() as client:
        with pytest.raises(rd.InputError, match="no MLflow run is active"):
            student.log_model()
        with mlflow.start_run() as run:
            address = student.log_model()
        (logged,) = client.get_run(run.info.run_id).outputs.model_outputs
        assert address == f"models:/{logged.model_id}"
        history = list(data.item_ids[:3])
        answer = mlflow.pyfunc.load_model(address).predict(pd.DataFrame({"history": [history], "k": [4]})).iloc[0]
    assert list(answer["items"]) == student.recommend([history], k=4)["item"].tolist()


def test_a_training_in_a_run_logs_no_data_that_it_was_not_given(tmp_path: Path, data: rd.SequenceData) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    torch.manual_seed(0)
    with Workplace(tmp_path, downloads).entered() as client, mlflow.start_run() as run:
        rd.train_student(data, epochs=1)
        params = client.get_run(run.info.run_id).data.params
    assert (params["student"], params["epochs"]) == ("sasrec", "1")
    # Their defaults would name MovieLens.
    assert params.keys().isdisjoint({"dataset", "split", "max_users", "min_interactions"})


def test_a_student_that_starts_from_texts(data):
    options = {"epochs": 1, "hidden_size": 8, "device": "cpu"}
    drawn, texts = (rd.train_student(data, **options | more) for more in ({}, {"item_init": "views", "views": "tfidf"}))
    assert texts.model.items.from_text is not None
    assert texts.settings["views"] == "tfidf"
    assert texts.settings != drawn.settings
    with pytest.raises(rd.InputError, match=r"^init_from=x: is of the steps backbone and distill"):
        rd.train_student(data, init_from="x", **options)
