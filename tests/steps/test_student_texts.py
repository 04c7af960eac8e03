"""``item_init=views``: students that start from texts, their twins, and what they take in production."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from kinds_data import QUICK, histories_of, write_data
from workplace import copied_workplace

import recdistill as rd
from recdistill.config import (
    AddItemsConfig,
    BaselineConfig,
    CompareConfig,
    DistillConfig,
    MapItemsConfig,
    TeacherConfig,
    changed,
)
from recdistill.errors import InputError
from recdistill.runs.served_model import student_folder
from recdistill.steps.add_items import add_items
from recdistill.steps.backbone import backbone
from recdistill.steps.compare import compare
from recdistill.steps.distill import distill
from recdistill.steps.inputs import data_of, frozen_student
from recdistill.steps.map_items import map_items
from recdistill.steps.teacher import teacher
from recdistill.students.build import load_recommender
from recdistill.students.mapped import MappedStudent
from recdistill.students.student import Student
from recdistill.teachers.outputs import Manifest, TeacherOutputs


@pytest.fixture(scope="module")
def place(tmp_path_factory, downloads):
    with copied_workplace(tmp_path_factory.mktemp("student_texts") / "place", downloads) as made:
        yield made


@pytest.fixture(scope="module")
def options(place):
    given = QUICK | write_data(place.folder) | {"item_init": "views", "epochs": 16}
    return given


@pytest.fixture(scope="module")
def trained(options):
    return backbone(BaselineConfig(**options, register="texts"))


@pytest.fixture(scope="module")
def teacher_folder(options, place):
    """Outputs of a teacher of every sample."""
    data = data_of(BaselineConfig(**options))
    samples, generator = len(data.train), torch.Generator().manual_seed(0)
    known = torch.as_tensor(np.flatnonzero(data.trained))
    manifest = Manifest(data.fingerprint, llm="tiny", num_items=data.num_items, num_samples=samples)
    outputs = TeacherOutputs(
        manifest,
        torch.arange(samples),
        torch.stack([known[torch.randperm(len(known), generator=generator)[:10]] for _ in range(samples)]),
        torch.rand(samples, 10, generator=generator).sort(dim=1).values,
        torch.randn(data.num_items, 6, generator=generator),
        item_view=torch.randn(data.num_items, 7, generator=generator),
    )
    folder = place.folder / "teacher"
    outputs.save(folder)
    return str(folder)


def test_a_new_item_is_ranked_by_its_text_without_a_map(trained, options):
    drawn = backbone(BaselineConfig(**{k: v for k, v in options.items() if k not in ("item_init", "views")}))
    assert drawn.key != trained.key
    name = "test/new_among_new/ndcg_at_20"
    # Everyone keeps to a kind, and the kind stands in the text alone.
    assert trained.metrics()[name] > 1.2 * drawn.metrics()[name]
    assert trained.metrics()["views/text_tokens"] == 0
    found = load_recommender(trained.artifact("student"))
    assert isinstance(found, MappedStudent)
    assert type(frozen_student(trained, torch.device("cpu"))) is type(found.student)
    assert isinstance(load_recommender(drawn.artifact("student")), Student)


def test_the_served_student_takes_new_items_and_old_scores_stay(trained, options, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("item,title,kind\nn1,Number 3,Jazz\nn2,Number 102,Crime\n")
    run = add_items(AddItemsConfig(model="models:/texts/1", items=str(path), device="cpu"))
    assert run.metrics()["add/items"] == 2
    old, new = (load_recommender(student_folder(f"models:/texts/{version}")[0]) for version in (1, 2))
    history, length = histories_of(None, np.arange(60))
    with torch.no_grad():
        before, after = old.scores(history, length), new.scores(history, length)
    data = data_of(BaselineConfig(**options))
    assert torch.equal(after[:, :60][:, data.trained], before[:, data.trained])
    torch.testing.assert_close(after[:, :60], before)
    # An item's embedding is that of its text alone: as item 3 has it, without what item 3's clicks added.
    untrained = int(np.flatnonzero(~data.trained)[0])
    path.write_text(f"item,title,kind\nm,{data.titles[untrained]},{data.item_columns['kind'][untrained]}\n")
    again = load_recommender(
        add_items(AddItemsConfig(model=trained.run_id, items=str(path), device="cpu")).artifact("student")
    )
    with torch.no_grad():
        scores = again.scores(history.clamp(max=59), length)
    torch.testing.assert_close(scores[:, 60], scores[:, untrained])


def test_texts_are_part_of_the_key_and_the_run_is_found_again(trained, options, tmp_path):
    again = backbone(BaselineConfig(**options))
    assert (again.run_id, again.reused) == (trained.run_id, True)
    path = tmp_path / "items.csv"
    path.write_text(Path(options["items"]).read_text().replace("Jazz", "Blues"))
    other = backbone(BaselineConfig(**options | {"items": str(path), "epochs": 1}))
    same = backbone(BaselineConfig(**options | {"epochs": 1}))
    assert other.fingerprint == same.fingerprint
    assert other.run_id != same.run_id


@pytest.mark.slow
def test_the_twin_of_a_student_that_starts_from_texts_does_so_too(trained, options, teacher_folder):
    distilled = distill(DistillConfig(**options, teacher_files=teacher_folder, candidate_topk=5))
    tags = mlflow.get_run(distilled.run_id).data.tags
    assert tags["recdistill.twin_run_id"] == trained.run_id
    compared = compare(CompareConfig(runs=distilled.run_id, resamples=100))
    table = pd.read_csv(compared.artifact("comparison") / "comparison.csv")
    assert len(table) >= 1
    run = add_items_of(distilled)
    assert load_recommender(run.artifact("student")).num_items == 61


def add_items_of(run):
    """The run that adds one item to a run's model."""
    file = Path("one_more.csv").resolve()
    file.write_text("item,title,kind\nz1,Number 300,War\n")
    return add_items(AddItemsConfig(model=run.run_id, items=str(file), device="cpu"))


def test_a_teacher_s_vectors_start_a_distilled_student_which_has_no_twin(options, teacher_folder):
    given = options | {"views": "teacher", "epochs": 2}
    run = distill(DistillConfig(**given, teacher_files=teacher_folder, candidate_topk=5, ed_weight=0.0))
    assert "recdistill.twin_run_id" not in mlflow.get_run(run.run_id).data.tags
    assert isinstance(load_recommender(run.artifact("student")), MappedStudent)


def test_it_is_read_from_python_with_all_that_belongs_to_it(trained, options, tmp_path):
    found = rd.load_run(trained.run_id)
    found.save(tmp_path)
    assert (tmp_path / "item_vectors" / "item_vectors.json").is_file()
    with mlflow.start_run():
        address = found.log_model()
    shorter = {"epochs": 1, "learning_rate": 1e-9}
    after = backbone(BaselineConfig(**options | shorter, init_from=address))
    old, new = (load_recommender(one.artifact("student")) for one in (trained, after))
    torch.testing.assert_close(new.student.item_table(), old.student.item_table(), atol=1e-5, rtol=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"^device=cuda: torch finds no CUDA device"):
            rd.load_run(trained.run_id, device="cuda")


def test_a_teacher_over_it_is_read_from_python(trained, options):
    given = {name: options[name] for name in ("dataset", "interactions", "items", "new_items", "device")}
    made = teacher(TeacherConfig(**given, teacher="backbone", backbone_run_id=trained.run_id, top_n=5))
    read = rd.load_run(made.run_id).model.backbone
    assert type(read) is type(frozen_student(trained, torch.device("cpu")))


def test_it_can_be_mapped_by_other_views_and_texts_too(trained):
    mapped = map_items(
        MapItemsConfig(student_run_id=trained.run_id, views="tfidf", item_text="kind", device="cpu", tfidf_words=1)
    )
    assert mapped.metrics()["map/explained"] > 0
    other = map_items(MapItemsConfig(student_run_id=trained.run_id, views="tfidf", item_text="title", device="cpu"))
    assert other.run_id != mapped.run_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_text": "title,colour"}, r"^item_text=title,colour: the items have no column 'colour'"),
        ({"views": "teacher"}, r"^views=teacher: an undistilled student has no teacher"),
        ({"views": "tfidf/sentence"}, r"^views=tfidf/sentence: item_init=views trains with one choice"),
        ({"item_init": "random"}, r"^views=tfidf: is of item_init=views; set that, or leave views out"),
        ({"student": "ease", "hidden_size": 64}, r"^item_init=views: ease has no item embeddings"),
        ({"views": "endpoint"}, r"endpoint"),
    ],
)
def test_what_cannot_start_from_texts_is_refused_in_one_line(options, change, message):
    with pytest.raises(InputError, match=message):
        backbone(BaselineConfig(**options | change))


def test_a_killed_training_goes_on_with_the_same_vectors(options, monkeypatch):
    config = changed(BaselineConfig(**options), epochs=3, seed=7)
    whole = backbone(config)

    def dies(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recdistill.steps.backbone.keep_trained", dies)
        with pytest.raises(KeyboardInterrupt):
            backbone(changed(config, force=True))
    with monkeypatch.context() as patch:
        # The vectors lie beside the checkpoint: nothing is fitted again.
        patch.setattr("recdistill.views.item_vectors.ItemVectors.fit", dies)
        again = backbone(changed(config, force=True))
    assert again.run_id != whole.run_id
    for name in ("test/ndcg_at_20", "val/ndcg_at_10", "test/new/ndcg_at_20"):
        assert again.metrics()[name] == whole.metrics()[name]
