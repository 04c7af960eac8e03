"""A tiny random BERT with a real tokenizer, as a local path for ``sentence_model=``."""

from pathlib import Path

import torch
from tiny_llm import tiny_tokenizer
from transformers import BertConfig, BertModel


def write_tiny_encoder(folder: Path, hidden_size: int = 24, seed: int = 3) -> Path:
    """Two random layers over byte-level tokens; it has no special tokens, so that a blank text has none."""
    config = BertConfig(
        vocab_size=300,
        hidden_size=hidden_size,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
