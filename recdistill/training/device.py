"""The device that options choose, and the precision of products there."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from recdistill.errors import InputError


class OnDevice(Protocol):
    """Options with a device."""

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``."""


def device_of(config: OnDevice) -> torch.device:
    """The device of the options; ``auto`` is CUDA where there is one, else the CPU.

    Raises InputError where CUDA is asked for and there is none.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: torch finds no CUDA device here; set device=auto or device=cpu")
    return torch.device(config.device)


def mixed_precision(bf16: bool, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass whose products are made of bfloat16 numbers, the parameters being in float32.

    One that changes nothing where ``bf16`` is false.
    """
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
