"""A base LLM in 4 bits, on the CPU: that it is what is trained over, saved beside and asked for again."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_llm import write_tiny_llm

from recdistill.errors import InputError
from recdistill.teachers.ilora.base_llm import BaseLLM, load_base_llm
from recdistill.teachers.ranking.model import (
    BackboneTables,
    RankingModel,
    RankingShape,
    build_ranking_model,
    load_ranking_model,
)

# A block of weights with one scale is 64 wide.
HIDDEN_SIZE = 64
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="pip install bitsandbytes")
TITLES = [f"Film number {item}" for item in range(12)]
SHAPE = RankingShape(
    rank=8,
    alpha=16.0,
    dropout=0.0,
    experts=4,
    gate="linear",
    residual=True,
    packing=True,
    context=3,
    plain_titles=True,
)
HISTORY = torch.arange(12).view(2, 6)
ROW, COLUMN = torch.tensor([0, 0, 1, 1]), torch.tensor([3, 5, 2, 4])
STATES, ITEMS = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((2, 6, 8), (12, 8)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llm(tmp_path_factory.mktemp("llm"), HIDDEN_SIZE)


def load(folder: Path, load_in_4bit: bool = True) -> BaseLLM:
    return load_base_llm(str(folder), gguf=None, cache=folder, dtype=torch.bfloat16, load_in_4bit=load_in_4bit)


def loss_of(teacher: RankingModel) -> torch.Tensor:
    logits, _ = teacher(HISTORY, ROW, COLUMN, STATES)
    return F.cross_entropy(logits, torch.arange(len(ROW)))


@needs_bitsandbytes
def test_its_layers_are_in_4_bits_and_nearly_what_they_were(folder: Path) -> None:
    packed, whole = load(folder), load(folder, load_in_4bit=False)
    layer, of_whole = (llm.model.get_submodule("layers.0.mlp.up_proj") for llm in (packed, whole))
    assert type(layer).__name__ == "Linear4bit"
    assert 2 * layer.weight.numel() == of_whole.weight.numel()
    assert layer.weight.dtype == torch.uint8
    tokens = torch.arange(1, 41).view(2, 20)
    with torch.no_grad():
        states, expected = (llm.model(input_ids=tokens)[0].float() for llm in (packed, whole))
    assert F.cosine_similarity(states, expected, dim=-1).min() > 0.9
    assert not torch.equal(states, expected)


@needs_bitsandbytes
def test_a_teacher_is_trained_over_it_and_loaded_over_it_alone(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = build_ranking_model(load(folder), SHAPE, TITLES, BackboneTables(ITEMS, ITEMS)).train()
    trained = teacher.trained()
    assert not any("base_layer" in name for name in trained)
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    optimizer = torch.optim.Adam([p for p in teacher.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(6):
        loss = loss_of(teacher)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in teacher.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert any("lora_A" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())
    assert losses[-1] < losses[0]
    teacher.eval().save(tmp_path)
    with torch.no_grad():
        loaded = load_ranking_model(tmp_path, load(folder), TITLES, BackboneTables(ITEMS, ITEMS))
        kept, again = loss_of(teacher), loss_of(loaded)
    torch.testing.assert_close(again, kept, rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="not over this"):
        load_ranking_model(tmp_path, load(folder, load_in_4bit=False), TITLES, BackboneTables(ITEMS, ITEMS))


def test_without_bitsandbytes_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="load_in_4bit=true: needs bitsandbytes; pip install bitsandbytes"):
        load(folder)
