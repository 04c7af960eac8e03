"""Students by name: build one from its shape, save it, load it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.errors import InputError
from recdistill.students.caser import Caser
from recdistill.students.gru4rec import GRU4Rec
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.sasrec import SASRec
from recdistill.students.student import OUTPUTS, Student

STUDENTS: dict[str, type[Student]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser}

WEIGHTS_FILE = "student.safetensors"
SHAPE_FILE = "student.json"


@dataclass(frozen=True)
class StudentShape:
    """What fixes a student's parameters, the catalogue and the teacher aside.

    Attributes:
        student: a name of `STUDENTS`.
        hidden_size: D.
        blocks: SASRec's blocks or GRU4Rec's layers; Caser has none and ignores it.
        heads: SASRec's attention heads, a divisor of D; the others ignore it.
        dropout: probability, in [0, 1).
        max_length: the longest history read.
        output: ``tied``, ``tied_bias`` or ``linear``; see `Student`.

    Raises:
        InputError: a value is unknown or out of range.
    """

    student: str
    hidden_size: int
    blocks: int
    heads: int
    dropout: float
    max_length: int
    output: str

    def __post_init__(self) -> None:
        if self.student not in STUDENTS:
            raise InputError(f"unknown student {self.student!r}; choose one of {', '.join(STUDENTS)}")
        if self.output not in OUTPUTS:
            raise InputError(f"unknown output {self.output!r}; choose one of {', '.join(OUTPUTS)}")
        for name in ("hidden_size", "blocks", "heads", "max_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout!r}; give a probability of at least 0 and below 1")


def build_student(
    shape: StudentShape,
    num_items: int,
    teacher_embedding: Tensor | None = None,
    ed_weight: float = 0.0,
    project_in_bf16: bool = False,
) -> Student:
    """A freshly initialised student over ``num_items`` items.

    Args:
        shape: the student and its sizes.
        num_items: V.
        teacher_embedding: [V, E], added at the input with weight ``ed_weight``; see `ItemEmbedding`.
        ed_weight: 0 builds the student without teacher, bit for bit.
        project_in_bf16: see `ItemEmbedding`.

    Raises:
        InputError: sizes or the teacher embedding do not fit.
    """
    if num_items < 1:
        raise InputError(f"num_items is {num_items}; give a catalogue of at least 1 item")
    items = ItemEmbedding(num_items, shape.hidden_size, teacher_embedding, ed_weight, project_in_bf16)
    if shape.student == "sasrec":
        return SASRec(items, shape.blocks, shape.heads, shape.dropout, shape.max_length, shape.output)
    if shape.student == "gru4rec":
        return GRU4Rec(items, shape.dropout, shape.max_length, shape.output, layers=shape.blocks)
    return Caser(items, shape.dropout, shape.max_length, shape.output)


def save_student(directory: str | Path, model: Student, shape: StudentShape, fold: bool = False) -> None:
    """Write ``student.safetensors`` and ``student.json`` into a directory, made if absent.

    Args:
        directory: where to.
        model: the student, built with ``shape``.
        shape: its shape.
        fold: write the item table with the injected embedding folded in, and no projection, so that the
            loaded student needs no teacher and gives the same logits up to rounding.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    folded = fold and model.items.injected
    if folded:
        with torch.no_grad():
            tensors["items.embedding.weight"] = model.items.padded_table().detach().cpu().contiguous()
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("items.projection.")}
    described = {
        "shape": dataclasses.asdict(shape),
        "num_items": model.num_items,
        "ed_weight": 0.0 if folded else model.items.ed_weight,
    }
    save_file(tensors, directory / WEIGHTS_FILE)
    (directory / SHAPE_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_student(
    directory: str | Path, teacher_embedding: Tensor | None = None, project_in_bf16: bool = False
) -> Student:
    """The student of `save_student`, on the CPU, in evaluation mode; draws no global random number.

    Args:
        directory: where `save_student` wrote.
        teacher_embedding: [V, E], needed where the student was saved with injection and not folded.
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
        model = build_student(shape, num_items, teacher_embedding, ed_weight, project_in_bf16)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name]:
            found = list(tensors[name].shape) if name in tensors else "missing"
            wanted = list(expected[name]) if name in expected else "none"
            raise InputError(f"{weights}: tensor {name} is {found}, the student has {wanted}; save it again")
    model.load_state_dict(tensors)
    return model.eval()


def _read_shape(path: Path) -> tuple[StudentShape, int, float]:
    """Shape, number of items and ed_weight of a saved student."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        shape = StudentShape(**described["shape"])
        return shape, int(described["num_items"]), float(described["ed_weight"])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the student's shape {path}; save the student again ({error})") from error
