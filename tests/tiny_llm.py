"""The tiny llama of the contract suites as a local path."""

from pathlib import Path

from recdistill.testing.tiny_llm import (
    HIDDEN_SIZE,
    VOCABULARY_SIZE,
    tiny_base_llm,
    tiny_model,
    tiny_tokenizer,
)

__all__ = ["HIDDEN_SIZE", "VOCABULARY_SIZE", "tiny_base_llm", "tiny_model", "tiny_tokenizer", "write_tiny_llm"]


def write_tiny_llm(folder: Path, hidden_size: int = HIDDEN_SIZE) -> Path:
    """The tiny llama and its tokenizer, as a local path for ``llm=``; the tokenizer has no padding token."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    tiny_model(hidden_size).save_pretrained(folder)
    return folder
