"""The Python interface where no other test has it: a teacher's gate, and the model of a run of one's own."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from registered_parts import registries_restored
from small_data import write_csv
from small_teachers import small, small_backbone, tiny_teacher
from workplace import Workplace

import recdistill as rd
from recdistill import api, plugins
from recdistill.config import AddItemsConfig
from recdistill.data.pinned_models import LLMS
from recdistill.steps.add_items import add_items
from recdistill.students.build import load_recommender
from recdistill.students.student import Student

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
    assert texts.fitted.model.items.from_text is not None
    assert texts.settings["views"] == "tfidf"
    assert texts.settings != drawn.settings


def test_a_student_that_starts_from_texts_is_kept_with_what_takes_new_items(tmp_path, data):
    student = rd.train_student(data, item_init="views", views="tfidf", device="cpu", **QUICKLY)
    downloads, path, folder = tmp_path / "downloads", tmp_path / "new.csv", tmp_path / "student"
    downloads.mkdir()
    path.write_text("item,title\nn1,Film of the day of the day 91\n")
    student.save(folder)
    loaded = rd.load_student(folder)
    loaded.save(folder)
    with Workplace(tmp_path, downloads).entered():
        for one in (student, rd.load_student(folder)):
            with mlflow.start_run():
                address = one.log_model()
            added = add_items(AddItemsConfig(model=address, items=str(path), device="cpu"))
            assert load_recommender(added.artifact("student")).num_items == len(data.titles) + 1
    asked = [list(data.item_ids[:3]), []]
    pd.testing.assert_frame_equal(loaded.recommend(asked), student.recommend(asked))
    # What takes new items goes with its student.
    rd.train_student(data, device="cpu", **QUICKLY).save(folder)
    assert isinstance(rd.load_student(folder).model, Student)


def test_a_backbone_that_starts_from_texts_has_states(data, tmp_path, monkeypatch):
    backbone, given = rd.train_student(data, item_init="views", views="tfidf", device="cpu", **QUICKLY), []
    backbone.save(tmp_path)
    monkeypatch.setattr(api, "fit_teacher", lambda config, data, frozen, **more: (given.append(frozen), None))
    for one in (backbone, rd.load_student(tmp_path)):
        rd.train_teacher(data, one, llm="smollm2-135m", device="cpu")
        assert given[-1] is one.model.student
    assert all(isinstance(one, Student) for one in given)


OWN = {"hidden_size": 8, "blocks": 1, "heads": 1, "epochs": 1, "max_length": 8, "candidate_topk": 4}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init_from": "x"}, "is of the step backbone, whose runs are tracked; leave it out"),
        ({"register": "films"}, "is of the step backbone"),
        ({"released": "student.pt"}, "is of the step backbone"),
        ({"estimate": True}, "is of the step backbone"),
        ({"refit": True}, "is of the step backbone"),
        ({"split": "leave-one-out"}, "is of the data, which are given; give it to load_data or load_frame"),
        ({"new_items": 0.1}, "is of the data"),
        ({"items": "films.csv"}, "is of the data"),
        ({"rate_floor": 0.5}, "is of schedule=linear or cosine; set that, or leave rate_floor out"),
    ],
)
def test_an_option_that_would_say_nothing_is_refused(data, given, message):
    ((name, value),) = given.items()
    with pytest.raises(rd.InputError, match=f"^{name}={value}: {message}"):
        rd.train_student(data, epochs=1, **given)


def test_an_option_of_the_data_that_would_say_nothing_is_refused(tmp_path):
    with pytest.raises(rd.InputError, match=r"^new_items_seed=2: is of new_items above 0; set that, or leave"):
        rd.load_data(**write_csv(tmp_path), new_items_seed=2)


def test_a_teacher_s_options_are_refused_where_they_would_say_nothing(data, trained):
    with pytest.raises(rd.InputError, match=r"^time_budget=5m: is of the step teacher"):
        rd.train_teacher(data, backbone=trained, time_budget="5m")
    with pytest.raises(rd.InputError, match=r"^token_budget=1000: is of the teacher, whose outputs are given"):
        rd.distill(data, trained.outputs(top_n=6), token_budget=1000, **OWN)


def test_a_backbone_of_other_data_is_refused(data, trained, tmp_path):
    said = "^backbone: was trained on other data, whose items or training targets are not those of this data"
    other = rd.load_data(**write_csv(tmp_path, seed=1))
    (tmp_path / "more").mkdir()
    longer = rd.load_data(**write_csv(tmp_path / "more", items=50))
    for backbone in (rd.train_student(one, **QUICKLY) for one in (other, longer)):
        with pytest.raises(rd.InputError, match=said):
            rd.train_teacher(data, backbone=backbone)


QUICKLY = {"epochs": 1, "hidden_size": 8, "blocks": 1, "heads": 1}


def test_a_wrong_kind_of_argument_is_one_line(data, trained):
    student = rd.train_student(data, student="itemknn")
    with pytest.raises(rd.InputError, match=r"^students: the entry 1 is a TrainedTeacher, which has no ranks"):
        rd.compare([student, trained])
    with pytest.raises(rd.InputError, match=r"^outputs: is a TrainedTeacher; give .* teacher\.outputs\(\)$"):
        rd.distill(data, trained)
    with pytest.raises(rd.InputError, match=r"^backbone: has no states of sequences; give a trained sasrec"):
        rd.train_teacher(data, backbone="x")
    for k in ("3", 2.0, 0):
        with pytest.raises(rd.InputError, match=rf"^k={k!r}: must be a whole number of at least 1"):
            student.recommend([["i1"]], k=k)
    assert len(student.recommend([["i1"]], k=np.int64(2))) == 2


@pytest.mark.parametrize("given", ["log.csv", {"user": [1]}, None])
def test_what_is_no_frame_is_one_line(given):
    with pytest.raises(
        rd.InputError, match=rf"^interactions: is a {type(given).__name__}; give a pandas DataFrame, or f"
    ):
        rd.load_frame(given)
    frame = pd.DataFrame({"user": [1], "item": [1], "timestamp": [1]})
    if given is not None:
        with pytest.raises(rd.InputError, match=rf"^items: is a {type(given).__name__}; give a pandas DataFrame"):
            rd.load_frame(frame, given)


def test_what_is_no_data_set_is_one_line(data, trained):
    frame = pd.DataFrame({"user": [1], "item": [1], "timestamp": [1]})
    outputs, backbone = trained.outputs(top_n=6), rd.train_student(data, **QUICKLY)
    for ask in (
        lambda: rd.train_student(frame),
        lambda: rd.distill(frame, outputs),
        lambda: rd.train_teacher(frame, backbone),
    ):
        with pytest.raises(rd.InputError, match=r"^data: is a DataFrame; give what load_data or load_frame returns$"):
            ask()


def test_options_of_a_comparison_are_checked(data):
    students = [rd.train_student(data, student=name) for name in ("itemknn", "ease")]
    for given, said in (
        ({"seeds": 3}, "seeds: there is no such option; the nearest is seed; options are resamples, seed"),
        ({"resamples": "10"}, "resamples='10': must be a whole number of at least 1"),
        ({"resamples": 0}, "resamples=0: must be a whole number of at least 1"),
        ({"resamples": 9.5}, "resamples=9.5: must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0"),
    ):
        with pytest.raises(rd.InputError, match=f"^{said}$"):
            rd.compare(students, **given)
    with pytest.raises(rd.InputError, match=r"^students: is a TrainedStudent; give a list of at least two students$"):
        rd.compare(students[0])
    with pytest.raises(rd.InputError, match=r"^runs='abc': is no list; give a list of ids$"):
        rd.compare_runs("abc")
    with pytest.raises(rd.InputError, match=r"^resamples=0: must be a whole number"):
        rd.compare_runs(resamples=0)
    assert rd.compare(iter(students), resamples=np.int64(10)).resamples == 10


def test_a_folder_that_cannot_be_written_is_one_line(data, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student = rd.train_student(data, student="itemknn")
    (tmp_path / "file").write_text("")
    for one in (student, trained):
        for folder in ("file", "file/below", Path("file")):
            with pytest.raises(rd.InputError, match=f"^folder={folder}: cannot be written .*; give another folder$"):
                one.save(folder)
        for folder in ("", None, 3):
            with pytest.raises(rd.InputError, match=f"^folder={folder!r}: is no name of a folder; give one"):
                one.save(folder)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


OWN_PARTS = (Path(__file__).parent / "plugin" / "parts_of_a_stranger.py").read_text(encoding="utf-8")


def test_a_kept_student_of_ones_own_is_loaded_by_its_plugin(data, tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", {})
    files = [tmp_path / f"{name}.py" for name in ("kept_parts", "moved_parts", "edited_parts")]
    for file in files:
        file.write_text(OWN_PARTS, encoding="utf-8")
    files[2].write_text(OWN_PARTS.replace("return mean + ", "return 2 * mean - "), encoding="utf-8")
    kept, moved, edited = map(str, files)
    with registries_restored():
        student = rd.train_student(data, student="decayed_mean", epochs=1, hidden_size=8, plugin=kept)
        student.save(tmp_path / "student")
        answer = student.recommend([["i1", "i2"]])
    with (
        registries_restored(),
        pytest.raises(rd.InputError, match=r"a part of your module kept_parts; give it"),
    ):
        rd.load_student(tmp_path / "student")
    with registries_restored():
        loaded = rd.load_student(tmp_path / "student", plugin=moved)
        pd.testing.assert_frame_equal(loaded.recommend([["i1", "i2"]]), answer)
        loaded.save(tmp_path / "again")
        described = json.loads((tmp_path / "again" / "student.json").read_text())
        assert described["plugin"]["module"] == "moved_parts"
    with registries_restored(), pytest.raises(rd.InputError, match=r"no longer the code that it was kept with"):
        rd.load_student(tmp_path / "student", plugin=edited)
    for file in files:
        sys.modules.pop(file.stem, None)


def test_a_kept_student_of_ours_names_no_module(data, tmp_path):
    rd.train_student(data, student="itemknn").save(tmp_path)
    assert "plugin" not in json.loads((tmp_path / "student.json").read_text())


def test_a_dealt_teacher_is_dealt_here_too(data, trained, monkeypatch):
    outputs, learnt = trained.outputs(top_n=6), []
    whole = api.fit_recommender
    monkeypatch.setattr(
        api, "fit_recommender", lambda *given, **named: learnt.append(named["teacher"]) or whole(*given, **named)
    )
    rd.distill(data, outputs, **OWN)
    rd.distill(data, outputs, teacher_shuffle="both", **OWN)
    assert not torch.equal(learnt[0].ranking, learnt[1].ranking)
    assert not torch.equal(learnt[0].item_embedding, learnt[1].item_embedding)
    for option in ({"query_share": 0.5}, {"rounds": 2}, {"teacher_run_id": "a" * 32}, {"teacher_files": "folder"}):
        (name,) = option
        with pytest.raises(rd.InputError, match=f"^{name}=.*: needs the run of a teacher"):
            rd.distill(data, outputs, **option, **OWN)


def test_parts_of_outputs_are_of_one_teacher_and_its_options(data, trained, tmp_path):
    other = tiny_teacher(data, small_backbone(data), lora_rank=4)
    with torch.no_grad():
        other.model.head.query.weight.normal_()
    another = rd.TrainedTeacher(other, other.config, data)
    found = [one.outputs(work=tmp_path, token_budget=0) for one in (trained, another)]
    alone = [one.outputs(token_budget=0) for one in (trained, another)]
    for one, expected in zip(found, alone, strict=True):
        assert torch.equal(one.ranking, expected.ranking)
    assert not torch.equal(found[0].ranking, found[1].ranking)
    assert trained.outputs(work=tmp_path, token_budget=0, top_n=3).top_n == 3
    # A student may be trained on what it says of the items.
    assert not any(one.item_view.is_inference() for one in found)


def test_what_is_no_list_of_histories_is_one_line(data):
    student = rd.train_student(data, **{name: OWN[name] for name in OWN if name != "candidate_topk"})
    for given, said in (
        ({"histories": ["1"]}, r"histories: the entry 0 is '1'; give a list of ids"),
        ({"histories": None}, r"histories=None: is no list; give a list with a list of ids for each"),
        ({"histories": "1"}, r"histories='1': is no list"),
        ({"histories": [["1"]], "exclude": 3}, r"exclude=3: is no list"),
        ({"histories": [["1"]], "k": True}, "k=True: must be a whole number of at least 1"),
        ({"histories": [["1"]], "k": 0}, "k=0: must be a whole number of at least 1"),
        ({"histories": [["1"]], "exclude": []}, "exclude: has 0 lists for 1 histories"),
        ({"histories": [["1"]], "allowed_items": [["1"], None]}, "allowed_items: has 2 lists for 1 histories"),
    ):
        with pytest.raises(rd.InputError, match=said):
            student.recommend(**given)


def test_iterators_are_answered_as_lists_are(data):
    student = rd.train_student(data, student="itemknn")
    asked, left_out, only = [["i1", "i2"], ["i3"]], [["i4"], []], [None, [f"i{item}" for item in range(20)]]
    expected = student.recommend(asked, 3, left_out, only)
    assert len(expected) == 6
    found = student.recommend(map(iter, asked), 3, iter(left_out), iter(only))
    pd.testing.assert_frame_equal(found, expected)


def test_ids_that_are_numbers_are_those_of_a_frame(tmp_path):
    drawn = np.random.default_rng(0)
    log = pd.DataFrame(
        {"user": np.repeat(np.arange(20), 6), "item": drawn.integers(0, 9, 120), "timestamp": range(120)}
    )
    frame = rd.load_frame(log)
    student = rd.train_student(frame, **{name: OWN[name] for name in OWN if name != "candidate_topk"})
    found = student.recommend([[1, np.int64(2), 3.0]], exclude=[[4]])
    assert found.equals(student.recommend([["1", "2", "3"]], exclude=[["4"]]))
    assert not {"1", "2", "3", "4"} & set(found["item"])


def test_a_kept_student_keeps_the_terms_of_its_models(data, trained, tmp_path):
    outputs = trained.outputs(top_n=6)
    named = replace(outputs, manifest=replace(outputs.manifest, llm="gemma3-270m"))
    student = rd.distill(data, named, **OWN)
    assert student.terms == LLMS["gemma3-270m"].terms
    student.save(tmp_path / "student")
    assert rd.load_student(tmp_path / "student").terms == student.terms
    rd.distill(data, outputs, **OWN).save(tmp_path / "other")
    assert rd.load_student(tmp_path / "other").terms == ""
