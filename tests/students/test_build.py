import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.build import (
    StudentShape,
    build_recommender,
    build_student,
    load_recommender,
    load_student,
    read_shape,
    save_recommender,
)
from recdistill.students.student import Student

NUM_ITEMS, LENGTH = 40, 10
BY_GRADIENT = STUDENTS.names(gradient=True)
Shape = Callable[..., StudentShape]
Build = Callable[..., Student]


def logits(model: Student) -> Tensor:
    history = torch.randint(0, NUM_ITEMS, (6, LENGTH), generator=torch.Generator().manual_seed(4))
    length = torch.full((6,), LENGTH)
    with torch.no_grad():
        return model.logits(model(history, length, torch.arange(6), length - 1))


@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", BY_GRADIENT)
def test_ed_weight_0_is_no_teacher_bit_for_bit(
    student: str, output: str, shape: Shape, teacher_embedding: Tensor
) -> None:
    torch.manual_seed(5)
    plain = build_student(shape(student, output=output), NUM_ITEMS)
    after_plain = torch.rand(3)
    torch.manual_seed(5)
    zero = build_student(shape(student, output=output), NUM_ITEMS, teacher_embedding, 0.0)
    assert torch.equal(after_plain, torch.rand(3))
    assert plain.state_dict().keys() == zero.state_dict().keys()
    assert all(torch.equal(tensor, zero.state_dict()[name]) for name, tensor in plain.state_dict().items())
    torch.manual_seed(6)
    with_dropout = logits(plain)
    torch.manual_seed(6)
    assert torch.equal(logits(zero), with_dropout)


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_injection_changes_no_other_initial_parameter(student: str, shape: Shape, teacher_embedding: Tensor) -> None:
    torch.manual_seed(5)
    plain, after_plain = build_student(shape(student), NUM_ITEMS), torch.rand(3)
    torch.manual_seed(5)
    injected = build_student(shape(student), NUM_ITEMS, teacher_embedding, 0.3)
    assert torch.equal(after_plain, torch.rand(3))
    added = injected.state_dict().keys() - plain.state_dict().keys()
    assert added == {"items.projection.weight", "items.projection.bias"}
    assert all(torch.equal(tensor, injected.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("ed_weight", [0.0, 0.3])
@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", BY_GRADIENT)
def test_saved_and_loaded_gives_equal_logits(
    student: str,
    output: str,
    ed_weight: float,
    shape: Shape,
    build: Build,
    teacher_embedding: Tensor,
    tmp_path: Path,
) -> None:
    model = build(student, ed_weight, output=output)
    save_recommender(tmp_path / "new" / "folder", model, shape(student, output=output))
    random_state = torch.get_rng_state()
    loaded = load_student(tmp_path / "new" / "folder", teacher_embedding if ed_weight else None)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not loaded.training
    assert type(loaded) is STUDENTS.get(student)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", BY_GRADIENT)
def test_folded_student_needs_no_teacher(student: str, output: str, shape: Shape, build: Build, tmp_path: Path) -> None:
    model = build(student, 0.3, output=output)
    plain = build(student, 0.0, output=output)
    save_recommender(tmp_path, model, shape(student, output=output), fold=True)
    loaded = load_student(tmp_path)
    assert not loaded.items.injected
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=1e-5)
    assert (logits(plain) - logits(model)).abs().max() > 1e-2
    assert loaded.items.embedding.weight[NUM_ITEMS].eq(0).all()


def test_folding_in_training_mode_leaves_the_model_as_it_was(shape: Shape, build: Build, tmp_path: Path) -> None:
    model = build("sasrec", 0.3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_recommender(tmp_path, model, shape("sasrec"), fold=True)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_injected_student_without_its_teacher_is_refused(shape: Shape, build: Build, tmp_path: Path) -> None:
    save_recommender(tmp_path, build("sasrec", 0.3), shape("sasrec"))
    with pytest.raises(InputError, match="give its teacher embedding, or save it with fold=True"):
        load_student(tmp_path)


def test_damaged_or_missing_files_are_refused(shape: Shape, build: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"student\.json"):
        load_student(tmp_path)
    save_recommender(tmp_path, build("sasrec"), shape("sasrec"))
    described = json.loads((tmp_path / "student.json").read_text())
    described["shape"]["hidden_size"] = 8
    (tmp_path / "student.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"tensor .* save it again"):
        load_student(tmp_path)
    (tmp_path / "student.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"student\.safetensors"):
        load_student(tmp_path)
    (tmp_path / "student.safetensors").unlink()
    with pytest.raises(InputError, match=r"student\.safetensors"):
        load_student(tmp_path)
    (tmp_path / "student.json").write_text("{}")
    with pytest.raises(InputError, match=r"student\.json"):
        load_student(tmp_path)


def test_empty_catalogue_is_refused(shape: Shape) -> None:
    with pytest.raises(InputError, match="num_items is 0"):
        build_student(shape("sasrec"), 0)


def test_each_student_takes_its_sizes_from_the_shape(shape: Shape) -> None:
    sasrec = build_student(shape("sasrec", blocks=3, heads=4), NUM_ITEMS)
    assert len(sasrec.attentions) == 3
    assert sasrec.attentions[0].heads == 4
    assert build_student(shape("gru4rec", blocks=3), NUM_ITEMS).gru.num_layers == 3
    caser = build_student(shape("caser", max_length=7, filters=5), NUM_ITEMS)
    assert (caser.vertical.in_features, caser.horizontal[0].out_channels) == (7, 5)


def test_the_shape_that_was_saved_is_read(shape: Shape, tmp_path: Path) -> None:
    asked = shape("sasrec", blocks=1)
    save_recommender(tmp_path, build_student(asked, NUM_ITEMS), asked)
    assert read_shape(tmp_path) == asked
    with pytest.raises(InputError, match=r"cannot read the student's shape .*student\.json"):
        read_shape(tmp_path / "elsewhere")


def test_a_closed_form_recommender_is_no_student(shape: Shape, teacher_embedding: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ease is not trained by gradient .* choose one of caser, esasrec, gru4rec"):
        build_student(shape("ease"), NUM_ITEMS)
    with pytest.raises(InputError, match=r"ed_weight is 0.3, but itemknn has no item embedding"):
        build_recommender(shape("itemknn"), NUM_ITEMS, teacher_embedding, 0.3)
    save_recommender(tmp_path, build_recommender(shape("itemknn"), NUM_ITEMS), shape("itemknn"))
    assert load_recommender(tmp_path).num_items == NUM_ITEMS
    with pytest.raises(InputError, match="itemknn is not trained by gradient"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("student", "kept"),
    [("sasrec", {"blocks": 1, "heads": 4}), ("gru4rec", {"blocks": 1}), ("caser", {"filters": 16})],
)
def test_a_folder_of_the_version_without_own_options_is_read(
    student: str, kept: dict, build: Build, shape: Shape, tmp_path: Path
) -> None:
    """``student.json`` held the blocks and heads of every student beside its sizes."""
    asked = {name: value for name, value in kept.items() if name != "filters"}
    model = build(student, **asked)
    save_recommender(tmp_path, model, shape(student, **asked))
    described = json.loads((tmp_path / "student.json").read_text())
    del described["shape"]["options"]
    described["shape"] |= {"blocks": 1, "heads": 4}
    (tmp_path / "student.json").write_text(json.dumps(described))
    assert read_shape(tmp_path).options == kept
    assert torch.equal(logits(load_student(tmp_path)), logits(model))


TENSORS = {
    "sasrec": "attentions.0.key.bias attentions.0.key.weight attentions.0.query.bias attentions.0.query.weight "
    "attentions.0.query_norm.bias attentions.0.query_norm.weight attentions.0.value.bias attentions.0.value.weight "
    "feed_forwards.0.inner.bias feed_forwards.0.inner.weight feed_forwards.0.input_norm.bias "
    "feed_forwards.0.input_norm.weight feed_forwards.0.outer.bias feed_forwards.0.outer.weight "
    "feed_forwards.0.output_norm.bias feed_forwards.0.output_norm.weight items.embedding.weight last_norm.bias "
    "last_norm.weight positions.weight",
    "gru4rec": "gru.bias_hh_l0 gru.bias_ih_l0 gru.weight_hh_l0 gru.weight_ih_l0 items.embedding.weight",
    "caser": "horizontal.0.bias horizontal.0.weight horizontal.1.bias horizontal.1.weight horizontal.2.bias "
    "horizontal.2.weight items.embedding.weight to_item_space.bias to_item_space.weight vertical.bias vertical.weight",
}


@pytest.mark.parametrize("student", TENSORS)
def test_saved_students_of_earlier_versions_have_these_tensors(student: str, shape: Shape) -> None:
    model = build_student(shape(student) if student == "caser" else shape(student, blocks=1), NUM_ITEMS)
    assert sorted(model.state_dict()) == TENSORS[student].split()
