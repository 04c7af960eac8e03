from pathlib import Path

import pytest
from tiny_llm import write_tiny_llm
from tiny_sentence_encoder import write_tiny_encoder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of tests are kept in no user's cache."""
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny llama and its tokenizer."""
    return write_tiny_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny BERT and its tokenizer."""
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))
