"""One tensor as ``torch.save(tensor)`` wrote it."""

import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from recdistill.errors import InputError


def read_saved_tensor(path: Path) -> Tensor:
    """Read the one tensor of a file of torch's zip or legacy format, on the CPU; nothing in the file is executed.

    Raises:
        InputError: the file is unreadable or damaged, holds something else, or names what no tensor needs.
    """
    try:
        with warnings.catch_warnings():
            # A pickle of another protocol is refused below; the warning says so first.
            warnings.simplefilter("ignore", UserWarning)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}); check the path") from error
    except Exception as error:  # a damaged file raises nearly anything
        # torch's own message is long, and advises to run what the file holds.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        said = f"refused: it names {named[1]}, which no tensor needs" if named else "no saved tensor"
        raise InputError(f"{path} is {said}; give one tensor as torch.save writes it") from error
    if not isinstance(found, Tensor):
        raise InputError(f"{path}: holds a {type(found).__name__}, not a tensor; save the tensor alone")
    if found.is_meta or found.layout != torch.strided:
        raise InputError(f"{path}: holds a tensor without its numbers, or a sparse one; save a dense tensor")
    return found.detach()
