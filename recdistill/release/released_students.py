"""Released weights: their names in our students, and iLoRA's pickled SASRec."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from recdistill.errors import InputError, one_line
from recdistill.release.restricted_pickle import read_pickled_module
from recdistill.students.build import StudentShape, build_student
from recdistill.students.caser import HEIGHTS, Caser
from recdistill.students.gru4rec import GRU4Rec
from recdistill.students.sasrec import SASRec
from recdistill.students.student import Student

# Ours: the released name.
_COMMON = {"items.embedding": "item_embeddings", "items.projection": "fc_4096_64", "output": "s_fc"}
_SASREC = {
    "attentions.0.query_norm": "ln_1",
    "attentions.0.query": "mh_attn.linear_q",
    "attentions.0.key": "mh_attn.linear_k",
    "attentions.0.value": "mh_attn.linear_v",
    "feed_forwards.0.input_norm": "ln_2",
    "feed_forwards.0.inner": "feed_forward.w_1",
    "feed_forwards.0.outer": "feed_forward.w_2",
    "feed_forwards.0.output_norm": "feed_forward.layer_norm",
    "last_norm": "ln_3",
    "positions": "positional_embeddings",
}
_CASER = {"vertical": "vertical_cnn"} | {f"horizontal.{i}": f"horizontal_cnn.{i}" for i in range(len(HEIGHTS))}
RELEASED_MODULES: dict[type[Student], dict[str, str]] = {
    SASRec: _COMMON | _SASREC,
    GRU4Rec: _COMMON | {"gru": "gru"},
    Caser: _COMMON | _CASER,
}

# The classes that iLoRA's released file pickles, beside torch's own layers.
_RELEASED_CLASSES = (
    ("__main__", "SASRec"),
    ("SASRecModules_ori", "MultiHeadAttention"),
    ("SASRecModules_ori", "PositionwiseFeedForward"),
)


def load_released(model: Student, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights with DLLM2Rec's released names into a student, in place.

    Args:
        model: a SASRec of one block, a GRU4Rec or a Caser, with output ``linear``. The released projection
            ``fc_4096_64`` is read where the student is injected, and ignored elsewhere.
        tensors: released name (a ``w.`` prefix is allowed) to tensor.

    Raises:
        InputError: no such student was released, or a tensor is missing or of another shape; the student is then left
            as it was.
    """
    if type(model) not in RELEASED_MODULES:
        names = ", ".join(kind.__name__ for kind in RELEASED_MODULES)
        raise InputError(f"{type(model).__name__} has no released weights; give one of {names}")
    modules = RELEASED_MODULES[type(model)]
    loaded: dict[str, Tensor] = {}
    for name, parameter in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        released = f"{modules.get(module, module)}.{kind}"
        tensor = tensors.get(f"w.{released}", tensors.get(released))
        if tensor is None:
            raise InputError(f"released weights lack {released} for {name}; build the student as it was released")
        tensor = _our_layout(module, tensor)
        if tensor.shape != parameter.shape:
            raise InputError(
                f"released {released} is {list(tensor.shape)}, the student's {name} {list(parameter.shape)}; "
                "build the student with the released sizes"
            )
        loaded[name] = tensor
    loaded["items.embedding.weight"] = loaded["items.embedding.weight"].clone()
    # Released padding rows are arbitrary, and masked later; ours are zero.
    loaded["items.embedding.weight"][model.num_items] = 0.0
    model.load_state_dict(loaded)


def read_released_sasrec(path: str | Path) -> Student:
    """Read iLoRA's released, pickled SASRec, in evaluation mode; nothing in the file is executed.

    Its state at a history's last position is iLoRA's h_seq, and its item table what iLoRA injects.

    Raises:
        InputError: the file is unreadable, names a class outside the allow-list, or holds no such SASRec.
    """
    root, tensors = read_pickled_module(path, _RELEASED_CLASSES)
    try:
        num_items = len(tensors["item_embeddings.weight"]) - 1
        max_length, hidden_size = tensors["positional_embeddings.weight"].shape
        heads = int(root.child("mh_attn").number("num_heads"))
        dropout = root.child("dropout").number("p")
        shape = StudentShape("sasrec", hidden_size, dropout, max_length, "linear", {"blocks": 1, "heads": heads})
        with torch.random.fork_rng(devices=[]):
            model = build_student(shape, num_items)
        load_released(model, tensors)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} holds no released SASRec ({one_line(error)}); give iLoRA's pickled SASRec") from error
    return model.eval()


def _our_layout(module: str, tensor: Tensor) -> Tensor:
    """A released tensor in the layout of our module: convolutions of kernel 1 are Linear, images 1-D."""
    if module.startswith("horizontal.") and tensor.ndim == 4:  # (F, 1, height, D) -> (F, D, height)
        return tensor.squeeze(1).transpose(1, 2)
    if module == "vertical" and tensor.ndim == 4:  # (1, 1, L, 1) -> (1, L)
        return tensor.flatten(1)
    if tensor.ndim == 3:  # (D, D, 1) -> (D, D)
        return tensor.squeeze(-1)
    return tensor
