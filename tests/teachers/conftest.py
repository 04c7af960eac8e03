from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_llm import tiny_model, write_tiny_llm
from transformers import LlamaForCausalLM, LlamaModel


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny_llama() -> Callable[..., LlamaForCausalLM | LlamaModel]:
    """A fresh tiny random llama, always with the same weights; without head unless ``causal_lm``."""

    def make(causal_lm: bool = False, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM | LlamaModel:
        model = tiny_model().to(dtype)
        return model if causal_lm else model.model

    return make


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny llama and its tokenizer."""
    return write_tiny_llm(tmp_path_factory.mktemp("tiny_llm"))
