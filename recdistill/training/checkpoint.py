"""The checkpoint: one safetensors file, its tensors and, as JSON in its header, the small values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from recdistill.whole_files import whole_file


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to ``path``. A kill leaves the old file or the new one, never a part of it.

    Tensors that lie whole in main memory are written from there, without a copy.
    """
    with whole_file(path) as place:
        save_file(apart(tensors), place, metadata={"values": json.dumps(values)})


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors contiguous on the CPU, no two in the same memory, which safetensors refuses; copies where need be."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    end = 0
    for name, tensor in sorted(held.items(), key=lambda one: one[1].data_ptr()):
        if tensor.data_ptr() < end:
            held[name] = tensor.clone()
        end = max(end, tensor.data_ptr() + tensor.nbytes)
    return held


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the tensors and values of `write_checkpoint`; None where there is no readable checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()["values"])
            return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of the optimizer's state, as ``optimizer.<parameter>.<name>``; its settings are not among them."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set the state of a freshly built optimizer to the tensors of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, field = rest.partition(".")
            state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
