"""A recommender as an ONNX model, for runtimes without Python or PyTorch; needs the extra ``onnx``.

Inputs are ``history`` int64 [B, L], right-padded with V, and ``length`` int64 [B], both of any B and of L up to the
recommender's ``max_length``; the output is ``scores`` float32 [B, V]. What is left out of a ranking, as the items of
the history, is left to who reads the scores.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from recdistill.errors import InputError, one_line
from recdistill.students.recommender import Recommender
from recdistill.whole_files import whole_file

OPSET = 17
#: Largest difference of a score that is no error, in absolute terms and of the largest score.
PARITY = 1e-5
#: Shapes [B, L] that a file is checked on; those that it was made from are none of them.
CHECKED = ((1, 1), (2, 3), (5, None))


class Scores(nn.Module):
    """The scores of a recommender as its forward pass."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, history: Tensor, length: Tensor) -> Tensor:
        """Scores [B, V] of histories [B, L]."""
        return self.recommender.scores(history, length)


def check_onnx() -> None:
    """Raise InputError where the extra is missing."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"format=onnx: needs {' and '.join(missing)}; pip install 'recdistill[onnx]'")


def write_onnx(path: Path, recommender: Recommender) -> float:
    """Write a recommender, check it against its own scores, and return the largest difference.

    Args:
        path: file to write; it appears under its name when it was checked.
        recommender: on the CPU, in evaluation mode.

    Raises:
        InputError: the extra is missing, the recommender uses what ONNX has not, or the scores differ.
    """
    check_onnx()
    length = min(4, recommender.max_length)
    history = histories(recommender, 3, length)
    with whole_file(path) as place:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    Scores(recommender).eval(),
                    history,
                    str(place),
                    input_names=["history", "length"],
                    output_names=["scores"],
                    dynamic_axes={
                        "history": {0: "batch", 1: "items"},
                        "length": {0: "batch"},
                        "scores": {0: "batch"},
                    },
                    opset_version=OPSET,
                    dynamo=False,
                )
            difference = largest_difference(place, recommender)
        except (RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"format=onnx: this recommender cannot be written so ({one_line(error, 200)})") from None
        if not difference <= PARITY:
            raise InputError(
                f"format=onnx: scores would differ by {difference:.1e}, more than {PARITY:.0e}; use the model"
            )
    return difference


def histories(recommender: Recommender, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Histories [B, L] and lengths [B], the first as long as can be, others shorter."""
    generator = torch.Generator().manual_seed(rows * width)
    items = torch.randint(recommender.num_items, (rows, width), generator=generator)
    length = torch.clamp(width - torch.arange(rows), min=1)
    return items.masked_fill(torch.arange(width) >= length[:, None], recommender.num_items), length


def largest_difference(path: Path, recommender: Recommender) -> float:
    """How far scores of the file are from the recommender's, over batches of several sizes and lengths.

    It is a share of the largest score where that is above 1.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = 0.0
    for rows, width in CHECKED:
        given = histories(recommender, rows, min(width or recommender.max_length, recommender.max_length))
        with torch.no_grad():
            own = recommender.scores(*given)
        named = zip(("history", "length"), given, strict=True)
        (scores,) = session.run(["scores"], {name: tensor.numpy() for name, tensor in named})
        scale = max(1.0, float(own.abs().max()))
        found = max(found, float((torch.from_numpy(scores) - own).abs().max()) / scale)
    return found
