import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recdistill.errors import InputError
from recdistill.students.build import STUDENTS, StudentShape, build_student, load_student, save_student
from recdistill.students.student import Student

NUM_ITEMS, LENGTH = 40, 10
Shape = Callable[..., StudentShape]
Build = Callable[..., Student]


def logits(model: Student) -> Tensor:
    history = torch.randint(0, NUM_ITEMS, (6, LENGTH), generator=torch.Generator().manual_seed(4))
    length = torch.full((6,), LENGTH)
    with torch.no_grad():
        return model.logits(model(history, length, torch.arange(6), length - 1))


@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", STUDENTS)
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


@pytest.mark.parametrize("student", STUDENTS)
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
@pytest.mark.parametrize("output", ["tied", "tied_bias", "linear"])
@pytest.mark.parametrize("student", STUDENTS)
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
    save_student(tmp_path / "new" / "folder", model, shape(student, output=output))
    random_state = torch.get_rng_state()
    loaded = load_student(tmp_path / "new" / "folder", teacher_embedding if ed_weight else None)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not loaded.training
    assert type(loaded) is STUDENTS[student]
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("output", ["tied", "tied_bias", "linear"])
@pytest.mark.parametrize("student", STUDENTS)
def test_folded_student_needs_no_teacher(student: str, output: str, shape: Shape, build: Build, tmp_path: Path) -> None:
    model = build(student, 0.3, output=output)
    plain = build(student, 0.0, output=output)
    save_student(tmp_path, model, shape(student, output=output), fold=True)
    loaded = load_student(tmp_path)
    assert not loaded.items.injected
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=1e-5)
    assert (logits(plain) - logits(model)).abs().max() > 1e-2
    assert loaded.items.embedding.weight[NUM_ITEMS].eq(0).all()


def test_folding_in_training_mode_leaves_the_model_as_it_was(shape: Shape, build: Build, tmp_path: Path) -> None:
    model = build("sasrec", 0.3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_student(tmp_path, model, shape("sasrec"), fold=True)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_injected_student_without_its_teacher_is_refused(shape: Shape, build: Build, tmp_path: Path) -> None:
    save_student(tmp_path, build("sasrec", 0.3), shape("sasrec"))
    with pytest.raises(InputError, match="give its teacher embedding, or save it with fold=True"):
        load_student(tmp_path)


def test_damaged_or_missing_files_are_refused(shape: Shape, build: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"student\.json"):
        load_student(tmp_path)
    save_student(tmp_path, build("sasrec"), shape("sasrec"))
    described = json.loads((tmp_path / "student.json").read_text())
    described["shape"]["hidden_size"] = 8
    described["shape"]["blocks"] = 1
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


def test_unknown_student_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="'bert4rec'; choose one of sasrec, gru4rec, caser"):
        StudentShape("bert4rec", 16, 1, 1, 0.1, 10, "tied")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"blocks": 1.5}, "blocks is 1.5"),
        ({"heads": -1}, "heads is -1"),
        ({"max_length": 0}, "max_length is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"output": "cosine"}, "'cosine'; choose one of tied, tied_bias, linear"),
    ],
)
def test_wrong_shape_is_refused(change: dict, said: str, shape: Shape) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(shape("sasrec"), **change)


def test_empty_catalogue_is_refused(shape: Shape) -> None:
    with pytest.raises(InputError, match="num_items is 0"):
        build_student(shape("sasrec"), 0)


def test_each_student_takes_its_sizes_from_the_shape(shape: Shape) -> None:
    sasrec = build_student(shape("sasrec", blocks=3, heads=4), NUM_ITEMS)
    assert len(sasrec.attentions) == 3
    assert sasrec.attentions[0].heads == 4
    assert build_student(shape("gru4rec", blocks=3), NUM_ITEMS).gru.num_layers == 3
    assert build_student(shape("caser", max_length=7), NUM_ITEMS).vertical.in_features == 7
