"""Losses computed once with the released code of DLLM2Rec, its two defects kept or mended (`per_sample`); signals."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from recdistill.config import base
from recdistill.distillation.selection import SelectionSignals, select, student_signals
from recdistill.registry import LOSS_TERMS, POLICIES

SAMPLES, ITEMS, COUNT = 40, 25, 4
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


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for registry in (POLICIES, LOSS_TERMS):
        monkeypatch.setattr(registry, "_declared", dict(registry._known()))
    monkeypatch.setattr(base, "_tables", {})


@pytest.fixture
def signals() -> SelectionSignals:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(SAMPLES, ITEMS, generator=generator)
    target = torch.randint(ITEMS, (SAMPLES,), generator=generator)
    candidates = torch.stack([torch.randperm(ITEMS, generator=generator)[:COUNT] for _ in range(SAMPLES)])
    loss, entropy, log_probs = student_signals(logits, target, candidates)
    return SelectionSignals(
        student_loss=loss,
        student_entropy=entropy,
        candidate_log_probs=log_probs,
        distance=torch.rand(SAMPLES, COUNT, generator=generator).sort(1).values,
        candidates=candidates,
        target=target,
        item_count=torch.randint(100, (ITEMS,), generator=generator),
        eligible=torch.rand(SAMPLES, generator=generator) < 0.7,
        temperature=0.5,
    )


def best_by(scores: list[float], signals: SelectionSignals, fraction: float) -> Tensor:
    """Plain selection by distinct scores of all samples, largest first."""
    eligible = signals.eligible.nonzero().flatten().tolist()
    chosen = sorted(eligible, key=scores.__getitem__, reverse=True)[: round(fraction * len(eligible))]
    return torch.tensor([i in chosen for i in range(len(scores))])


@pytest.fixture
def takes_the_best() -> Callable[..., None]:
    """Asserts that a policy selects the samples of largest score, given for all samples."""

    def check(policy: str, signals: SelectionSignals, scores: list[float]) -> None:
        for fraction in (0.1, 0.4, 0.5):
            assert torch.equal(select(policy, signals, fraction), best_by(scores, signals, fraction))

    return check
