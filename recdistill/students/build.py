"""Recommenders by name: build one from its shape, save it, load it."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.distillation.projection import FactoredTable
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape, shape_of, shape_of_values
from recdistill.students.student import Student
from recdistill.students.text_vectors import TextVectors

__all__ = [
    "StudentShape",
    "build_recommender",
    "build_student",
    "load_recommender",
    "load_student",
    "read_shape",
    "save_recommender",
    "shape_of",
]

WEIGHTS_FILE = "student.safetensors"
SHAPE_FILE = "student.json"
#: Is there where the student scores new items; see `students.mapped`.
NEW_ITEMS_FILE = "new_items.json"


def build_recommender(
    shape: StudentShape,
    num_items: int,
    teacher_embedding: Tensor | FactoredTable | None = None,
    ed_weight: float = 0.0,
    project_in_bf16: bool = False,
    texts: TextVectors | None = None,
) -> Recommender:
    """A freshly initialised student, see `build_student`, or a closed-form recommender that is not fitted yet.

    Raises:
        InputError: sizes or the teacher embedding do not fit.
    """
    if num_items < 1:
        raise InputError(f"num_items is {num_items}; give a catalogue of at least 1 item")
    kind = STUDENTS.get(shape.student)
    kind.check(num_items, shape.own())
    if issubclass(kind, Student):
        items = ItemEmbedding(num_items, shape.hidden_size, teacher_embedding, ed_weight, project_in_bf16, texts)
        return kind(items, dropout=shape.dropout, max_length=shape.max_length, output=shape.output, **shape.options)
    if ed_weight:
        raise InputError(f"ed_weight is {ed_weight}, but {shape.student} has no item embedding; give 0")
    if texts is not None:
        raise InputError(f"item_init=views: {shape.student} has no item embedding; use item_init=random")
    model: Recommender = kind(num_items, shape.max_length, shape.own())
    return model


def build_student(
    shape: StudentShape,
    num_items: int,
    teacher_embedding: Tensor | FactoredTable | None = None,
    ed_weight: float = 0.0,
    project_in_bf16: bool = False,
    texts: TextVectors | None = None,
) -> Student:
    """A freshly initialised student over ``num_items`` items.

    Args:
        shape: the student and its sizes.
        num_items: V.
        teacher_embedding: [V, E], or its factors, added at the input with weight ``ed_weight``; see `ItemEmbedding`.
        ed_weight: 0 builds the student without teacher, bit for bit.
        project_in_bf16: see `ItemEmbedding`.
        texts: vectors of the items' texts that embeddings start from; None for drawn ones.

    Raises:
        InputError: it is not trained by gradient, or sizes, texts or the teacher embedding do not fit.
    """
    return _student(shape, build_recommender(shape, num_items, teacher_embedding, ed_weight, project_in_bf16, texts))


def _student(shape: StudentShape, model: Recommender) -> Student:
    if not isinstance(model, Student):
        of_gradient = ", ".join(STUDENTS.names(gradient=True))
        raise InputError(f"{shape.student} is not trained by gradient and has no states; choose one of {of_gradient}")
    return model


def save_recommender(directory: str | Path, model: Recommender, shape: StudentShape, fold: bool = False) -> None:
    """Write ``student.safetensors`` and ``student.json`` into a directory, made if absent.

    Args:
        directory: where to.
        model: the recommender, of the shape ``shape``. Embeddings from texts are written as rows of the item table.
        shape: its shape.
        fold: of a student, write the item table with the injected embedding folded in, and no projection, so that
            the loaded student needs no teacher and gives the same logits up to rounding.
    """
    from recdistill.students.mapped import MappedStudent

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(model, MappedStudent):
        save_recommender(directory, model.student, shape, fold)
        model.save_map(directory)
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    ed_weight = model.items.ed_weight if isinstance(model, Student) else 0.0
    if isinstance(model, Student) and model.items.from_text is not None:
        with torch.no_grad():
            tensors["items.embedding.weight"] = model.items.own_table().detach().cpu().contiguous()
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("items.from_text.")}
    if fold and isinstance(model, Student) and model.items.injected:
        ed_weight = 0.0
        with torch.no_grad():
            tensors["items.embedding.weight"] = model.items.padded_table().detach().cpu().contiguous()
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("items.projection.")}
    described = {"shape": shape.values(), "num_items": model.num_items, "ed_weight": ed_weight}
    save_file(tensors, directory / WEIGHTS_FILE)
    (directory / SHAPE_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_recommender(
    directory: str | Path, teacher_embedding: Tensor | None = None, project_in_bf16: bool = False
) -> Recommender:
    """The recommender of `save_recommender`, on the CPU, in evaluation mode; draws no global random number.

    Args:
        directory: where `save_recommender` wrote.
        teacher_embedding: [V, E], needed where a student was saved with injection and not folded.
        project_in_bf16: see `ItemEmbedding`.

    Raises:
        InputError: a file is missing or damaged, or the teacher embedding is missing or does not fit.
    """
    directory = Path(directory)
    shape, num_items, ed_weight = _read_shape(directory / SHAPE_FILE)
    weights = directory / WEIGHTS_FILE
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the student's weights {weights}; save the student again ({error})") from error
    if ed_weight > 0 and teacher_embedding is None:
        raise InputError(
            f"the student in {directory} was saved with an injected teacher; give its teacher embedding, "
            "or save it with fold=True"
        )
    with torch.random.fork_rng(devices=[]):
        model = build_recommender(shape, num_items, teacher_embedding, ed_weight, project_in_bf16)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name]:
            found = list(tensors[name].shape) if name in tensors else "missing"
            wanted = list(expected[name]) if name in expected else "none"
            raise InputError(f"{weights}: tensor {name} is {found}, the student has {wanted}; save it again")
    model.load_state_dict(tensors)
    if not (directory / NEW_ITEMS_FILE).exists():
        return model.eval()
    from recdistill.students.mapped import load_mapped

    return load_mapped(directory, model.eval())


def load_student(
    directory: str | Path, teacher_embedding: Tensor | None = None, project_in_bf16: bool = False
) -> Student:
    """As `load_recommender`, where a student with an item embedding and states is needed.

    Raises:
        InputError: as there, or the saved recommender is not trained by gradient.
    """
    return _student(read_shape(directory), load_recommender(directory, teacher_embedding, project_in_bf16))


def read_shape(directory: str | Path) -> StudentShape:
    """The shape that `save_recommender` wrote. Raises InputError where it cannot be read."""
    return _read_shape(Path(directory) / SHAPE_FILE)[0]


def _read_shape(path: Path) -> tuple[StudentShape, int, float]:
    """Shape, number of items and ed_weight of a saved recommender."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        shape = shape_of_values(described["shape"])
        return shape, int(described["num_items"]), float(described["ed_weight"])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the student's shape {path}; save the student again ({error})") from error
