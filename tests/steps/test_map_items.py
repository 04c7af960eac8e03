"""``map_items`` and ``add_items``: from texts to a served student with new items."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from kinds_data import QUICK, histories_of, write_data
from workplace import copied_workplace

import recdistill as rd
from recdistill.config import AddItemsConfig, BaselineConfig, CompareConfig, MapItemsConfig
from recdistill.data.item_texts import item_texts
from recdistill.errors import InputError
from recdistill.runs.served_model import load_model, student_folder
from recdistill.steps import inputs
from recdistill.steps.add_items import add_items
from recdistill.steps.backbone import backbone
from recdistill.steps.compare import compare
from recdistill.steps.inputs import data_of
from recdistill.steps.map_items import map_items
from recdistill.students.build import load_recommender, load_student, read_shape
from recdistill.students.catalogue_file import read_catalogue
from recdistill.students.mapped import MappedStudent
from recdistill.views.item_vectors import ItemVectors
from recdistill.views.model_view import LoadedModel


@pytest.fixture(scope="module")
def place(tmp_path_factory, downloads):
    """One place for the whole file, so that a student is trained once."""
    with copied_workplace(tmp_path_factory.mktemp("map_items") / "place", downloads) as made:
        yield made


@pytest.fixture(scope="module")
def options(place):
    return QUICK | write_data(place.folder)


@pytest.fixture(scope="module")
def mapped_run(options):
    return map_items(MapItemsConfig(**(options | {"register": "films"})))


def test_a_student_gets_new_items_and_keeps_its_scores_bit_for_bit(options, mapped_run):
    run = mapped_run
    data = data_of(MapItemsConfig(**options))
    found = load_recommender(run.artifact("student"))
    before = backbone(BaselineConfig(**{name: value for name, value in options.items() if name != "views"}))
    assert before.reused
    student = load_student(before.artifact("student"))
    assert isinstance(found, MappedStudent)
    known = np.flatnonzero(data.trained)
    history, length = histories_of(data, known)
    with torch.no_grad():
        scores, own = found.scores(history, length), student.scores(history, length)
    assert torch.equal(scores[:, known], own[:, known])
    assert not torch.allclose(scores[:, ~data.trained], own[:, ~data.trained])
    metrics = run.metrics()
    for part in ("val", "test"):
        assert {f"{part}/{name}ndcg_at_20" for name in ("", "warm/", "new/", "new_among_new/")} <= metrics.keys()
    assert metrics["map/val_warm_cost"] <= 0.02
    # Everyone keeps to a kind, and the kind stands in the text alone.
    assert metrics["test/new_among_new/ndcg_at_20"] > 1.2 * before.metrics()["test/new_among_new/ndcg_at_20"]
    curve = json.loads((run.artifact("new_items") / "curve.json").read_text())
    taken = curve["curve"]["test"][curve["chosen"]]
    assert taken["new"] == pytest.approx(metrics["test/new/ndcg_at_20"])
    assert taken["warm"] == pytest.approx(metrics["test/warm/ndcg_at_20"])
    assert (run.artifact("new_items") / "curve.png").read_bytes().startswith(b"\x89PNG")


def mapped_again(student):
    map_items(MapItemsConfig(student_run_id=student, views="tfidf", device="cpu"))


@pytest.mark.parametrize("read", [mapped_again, rd.load_run])
def test_a_student_of_data_that_have_changed_since_is_not_read_by_them(options, mapped_run, read):
    # Items are numbered in the order of their file: another order would give each the row of another.
    student = mlflow.get_run(mapped_run.run_id).data.tags["recdistill.mapped_run_id"]
    path = Path(options["items"])
    before = path.read_text()
    head, *lines = before.splitlines(keepends=True)
    path.write_text(head + "".join(reversed(lines)))
    inputs._load_data.cache_clear()
    try:
        with pytest.raises(InputError, match=rf"run_id={student}: was made for data \w+, not for this data"):
            read(student)
    finally:
        path.write_text(before)
        inputs._load_data.cache_clear()
    assert len(rd.load_run(student).catalogue) == 60


@pytest.mark.slow
def test_one_student_serves_many_maps_and_the_same_map_is_found_again(mapped_run):
    first = mapped_run
    student = mlflow.get_run(first.run_id).data.tags["recdistill.backbone_run_id"]
    named = map_items(MapItemsConfig(views="tfidf", student_run_id=student, device="cpu"))
    assert (named.run_id, named.reused) == (first.run_id, True)
    titles = map_items(MapItemsConfig(views="tfidf", student_run_id=student, item_text="title", device="cpu"))
    assert titles.run_id != first.run_id
    assert mlflow.get_run(titles.run_id).data.tags["recdistill.backbone_run_id"] == student
    compared = compare(CompareConfig(runs=f"{first.run_id},{titles.run_id}", resamples=100))
    table = pd.read_csv(compared.artifact("comparison") / "comparison.csv")
    assert any("item_text=title" in str(value) for value in table.to_numpy().ravel())


def test_the_texts_are_part_of_the_key(options, mapped_run, tmp_path):
    first = mapped_run
    path = tmp_path / "items.csv"
    path.write_text(Path(options["items"]).read_text().replace("Jazz", "Blues"))
    again = map_items(MapItemsConfig(**(options | {"items": str(path)})))
    assert not again.reused
    assert again.run_id != first.run_id
    assert again.fingerprint == first.fingerprint


def test_validation_chooses_between_views(options, monkeypatch):
    monkeypatch.setattr("recdistill.views.sentence.SentenceView.load", no_model)
    chosen = []

    def fit(config, *arguments, **more):
        chosen.append(config.views)
        return whole(config, *arguments, **more)

    whole = ItemVectors.fit
    monkeypatch.setattr(ItemVectors, "fit", fit)
    config = MapItemsConfig(**(options | {"views": "tfidf/tfidf+sentence"}))
    monkeypatch.setattr("recdistill.views.sentence.SentenceView.vectors", useless)
    run = map_items(config)
    assert chosen == ["tfidf", "sentence+tfidf"]
    tried = json.loads((run.artifact("new_items") / "curve.json").read_text())["views"]
    best = max(tried, key=lambda one: one["value"])
    assert best["value"] == pytest.approx(run.metrics()["val/new_among_new/ndcg_at_20"])
    assert ItemVectors.load(run.artifact("student") / "item_vectors", device="cpu").names == tuple(
        best["views"].split("+")
    )


def no_model(view):
    """In place of a model that would be downloaded."""
    return LoadedModel(torch.nn.Identity(), None, "none")


def useless(view, texts):
    """Vectors that say nothing of a text, but tell it from others."""
    return np.stack([np.random.default_rng(len(text) * 31 + ord(text[-1])).normal(size=16) for text in texts]).astype(
        np.float32
    )


@pytest.mark.slow
def test_where_validation_has_no_new_item_trained_ones_stand_for_them(options):
    run = map_items(MapItemsConfig(**(options | {"new_items": 0.0})))
    metrics = run.metrics()
    assert metrics["map/val_warm_cost"] <= 0.02
    assert metrics["map/offset"] < 40
    assert "test/new/ndcg_at_20" not in metrics
    assert isinstance(load_recommender(run.artifact("student")), MappedStudent)


def test_a_student_s_own_map_is_kept_and_its_new_items_are_set_anew(options):
    joint = backbone(BaselineConfig(**(options | {"item_init": "views"})))
    run = map_items(MapItemsConfig(student_run_id=joint.run_id, item_map="own", device="cpu"))
    before, found = (load_recommender(one.artifact("student")) for one in (joint, run))
    assert isinstance(before, MappedStudent)
    assert isinstance(found, MappedStudent)
    data = data_of(MapItemsConfig(**options))
    history, length = histories_of(data, np.flatnonzero(data.trained))
    with torch.no_grad():
        scores, own = found.scores(history, length), before.scores(history, length)
    assert torch.equal(scores[:, data.trained], own[:, data.trained])
    place = found.new_item_map.interleaving
    torch.testing.assert_close(scores[:, ~data.trained], place(own[:, ~data.trained]))
    metrics = run.metrics()
    assert metrics["map/val_warm_cost"] <= 0.02
    assert "map/explained" not in metrics
    name = "test/new_among_new/ndcg_at_20"
    assert metrics[name] == pytest.approx(joint.metrics()[name])
    # Its views are the student's, whatever this step's defaults are; the map that it keeps is still its own.
    assert json.loads((run.artifact("new_items") / "curve.json").read_text())["views"][0]["views"] == "tfidf"
    assert found.new_item_map.terms is None


@pytest.mark.slow
def test_trained_items_stand_for_new_ones_by_the_own_map_alone(options):
    chronological = {name: value for name, value in options.items() if name != "new_items"} | {"item_init": "views"}
    run = map_items(MapItemsConfig(**chronological, item_map="own"))
    assert run.metrics()["map/val_warm_cost"] <= 0.02
    found = load_recommender(run.artifact("student"))
    vectors = torch.from_numpy(ItemVectors.load(run.artifact("student") / "item_vectors").table)
    wanted = torch.tensor([1, 3])
    other = found.with_new(read_shape(run.artifact("student")), wanted, vectors)
    torch.testing.assert_close(other.student.item_table()[wanted], found.new_item_map.map(vectors[wanted]))
    rest = torch.ones(found.num_items, dtype=torch.bool)
    rest[wanted] = False
    assert torch.equal(other.student.item_table()[rest], found.student.item_table()[rest])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": "linear"}, r"^output=linear: new items have no row in that layer"),
        ({"student": "ease", "hidden_size": 64}, r"^student=ease: has no item embeddings"),
        ({"item_map": "own"}, r"^item_map=own: the student was not trained with item_init=views"),
        ({"views": "teacher"}, r"^views=teacher: the student was not distilled; set teacher_run_id="),
        ({"teacher_run_id": "a" * 32}, r"^teacher_run_id=a+: is for views=teacher"),
        ({"item_text": "title,colour"}, r"^item_text=title,colour: the items have no column 'colour'"),
        ({"student_run_id": "b" * 32}, r"run_id=b+: no such run"),
    ],
)
def test_what_cannot_be_mapped_is_refused_in_one_line(options, change, message):
    with pytest.raises(InputError, match=message):
        map_items(MapItemsConfig(**(options | change)))


@pytest.fixture
def new_file(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("item,title,kind\nn1,Number 101,Jazz\nn2,Number 102,Crime\n")
    return str(path)


def test_items_are_added_and_nothing_else_changes(options, mapped_run, new_file):
    first = mapped_run
    run = add_items(AddItemsConfig(model="models:/films/1", items=new_file, device="cpu"))
    old, new = (load_recommender(student_folder(f"models:/films/{version}")[0]) for version in (1, 2))
    catalogue, _ = read_catalogue(student_folder("models:/films/2")[0])
    assert catalogue.item_ids[-2:] == ("n1", "n2")
    assert catalogue.titles[-2:] == ("Number 101", "Number 102")
    assert catalogue.item_count[-2:].tolist() == [0, 0]
    history, length = histories_of(None, np.arange(60))
    with torch.no_grad():
        before, after = old.scores(history, length), new.scores(history, length)
    data = data_of(MapItemsConfig(**options))
    assert torch.equal(after[:, :60][:, data.trained], before[:, data.trained])
    # An item that says what an old one says is an old one.
    vectors = ItemVectors.load(first.artifact("student") / "item_vectors", device="cpu")
    texts = item_texts(["Number 101", "Number 102"], {"kind": ["Jazz", "Crime"]})
    expected = new.new_item_map.map(torch.from_numpy(vectors.of(texts)))
    torch.testing.assert_close(new.student.item_table()[60:], expected)
    assert run.metrics()["add/items"] == 2
    assert load_recommender(run.artifact("student")).num_items == 62


def test_new_items_are_recommended_and_read_by_the_served_model(options, new_file):
    mapped = map_items(MapItemsConfig(**(options | {"warm_cost": 1.0})))
    run = add_items(AddItemsConfig(model=mapped.run_id, items=new_file, device="cpu"))
    served = load_model(run.run_id)
    jazz = [f"i{item}" for item in range(3, 60, 4)][:8]
    answer = served.predict(pd.DataFrame({"history": [jazz, ["n1"], ["i0", "n1"]], "k": [62, 62, 62]}))
    assert {"n1", "n2"} <= set(answer["items"][0])
    assert answer["unknown_items"].tolist() == [0, 0, 0]
    assert not answer["fallback"].any()
    assert "n1" not in answer["items"][1]
    assert "Number 102" in answer["titles"][1]


def test_more_items_are_added_to_those_that_were_added(mapped_run, new_file, tmp_path):
    first = add_items(AddItemsConfig(model=mapped_run.run_id, items=new_file, device="cpu"))
    more = tmp_path / "more.csv"
    more.write_text("item,title,kind\nn3,Number 103,War\n")
    second = add_items(AddItemsConfig(model=first.run_id, items=str(more), device="cpu"))
    assert read_catalogue(student_folder(second.run_id)[0])[0].item_ids[-3:] == ("n1", "n2", "n3")
    again = add_items(AddItemsConfig(model=first.run_id, items=str(more), device="cpu"))
    assert (again.run_id, again.reused) == (second.run_id, True)
    with pytest.raises(InputError, match=r"row 1: item 'n1' is known"):
        add_items(AddItemsConfig(model=second.run_id, items=new_file))


def test_the_champion_gets_items_in_a_version_behind_it_and_stays(mapped_run, tmp_path, capsys):
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("films", "champion", "1")
    gone = tmp_path / "new.csv"
    gone.write_text("item,title,kind\nn7,Number 107,Jazz\n")
    run = add_items(AddItemsConfig(model="models:/films@champion", items=str(gone), device="cpu"))
    said = capsys.readouterr().out
    number = re.search(r"1 items added to models:/films@champion: models:/films/(\d+)\n", said)[1]
    assert int(number) > 1
    assert client.get_model_version("films", number).run_id == run.run_id
    assert read_catalogue(student_folder(f"models:/films/{number}")[0])[0].item_ids[-1] == "n7"
    assert client.get_model_version_by_alias("films", "champion").version == 1
    assert "n7" not in read_catalogue(student_folder("models:/films@champion")[0])[0].item_ids
    # The same by its version, and by the run: one result.
    again = [add_items(AddItemsConfig(model=one, items=str(gone))) for one in ("models:/films/1", mapped_run.run_id)]
    assert [(one.run_id, one.reused) for one in again] == [(run.run_id, True)] * 2


def test_vectors_stand_for_texts(mapped_run, new_file, tmp_path):
    mapped = mapped_run
    vectors = ItemVectors.load(mapped.artifact("student") / "item_vectors", device="cpu")
    texts = item_texts(["Number 101", "Number 102"], {"kind": ["Jazz", "Crime"]})
    table = pd.DataFrame({"item": ["n2", "n1"], "vector": vectors.of(texts)[::-1].tolist()})
    table.to_parquet(tmp_path / "vectors.parquet")
    bare = tmp_path / "bare.csv"
    bare.write_text("item,title\nn1,Number 101\nn2,Number 102\n")
    by_text = add_items(AddItemsConfig(model=mapped.run_id, items=new_file, device="cpu"))
    given = add_items(AddItemsConfig(model=mapped.run_id, items=str(bare), vectors=str(tmp_path / "vectors.parquet")))
    tables = [load_recommender(run.artifact("student")).student.item_table() for run in (by_text, given)]
    torch.testing.assert_close(*tables)


def test_a_model_without_a_map_is_refused_in_one_line(options, new_file):
    run = backbone(BaselineConfig(**{name: value for name, value in options.items() if name != "views"}))
    with pytest.raises(InputError, match=f"^model={run.run_id}: keeps no map from texts to items; run map_items"):
        add_items(AddItemsConfig(model=run.run_id, items=new_file))
    with pytest.raises(InputError, match=r"^model=: say which student"):
        add_items(AddItemsConfig(items=new_file))
    with pytest.raises(InputError, match=r"^model=models:/nobody/1: no model at"):
        add_items(AddItemsConfig(model="models:/nobody/1", items=new_file))
