"""Losses computed once with the released code of DLLM2Rec: its two defects kept, or mended (`per_sample`)."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

PARITY = Path(__file__).parents[1] / "parity"


@dataclass(frozen=True)
class Released:
    tensors: dict[str, Tensor]
    settings: dict[str, float]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def gammas(self) -> dict[str, float]:
        return {name: value for name, value in self.settings.items() if name.startswith("gamma")}


def read_parity(name: str) -> Released:
    with safe_open(PARITY / f"dllm2rec_losses_{name}.safetensors", "pt") as file:
        settings = {key: float(value) for key, value in file.metadata().items()}
        return Released({key: file.get_tensor(key) for key in file.keys()}, settings)  # noqa: SIM118


@pytest.fixture(params=["small", "wide", "large_logits"])
def released(request: pytest.FixtureRequest) -> Released:
    return read_parity(request.param)


@pytest.fixture(params=["small", "wide"])
def released_with_defects(request: pytest.FixtureRequest) -> Released:
    return read_parity(request.param)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def tolerance(request: pytest.FixtureRequest, dtype: torch.dtype) -> float:
    """Relative: the release keeps its weights in float32, so float64 agrees to 1e-6 only."""
    if dtype == torch.float64:
        return 1e-6
    return 1e-4 if "large_logits" in request.node.name else 1e-5
