"""A tiny random llama with a working tokenizer, made offline."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY_SIZE = 300
HIDDEN_SIZE = 32
END_TOKEN = "<|end|>"


def tiny_config() -> LlamaConfig:
    """Two layers of width 32, four heads, vocabulary 300; 256 bytes and the end token are real tokens."""
    return LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=None,
        tie_word_embeddings=True,
    )


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """The random model, in evaluation mode; the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(tiny_config()).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: every text is its UTF-8 bytes, one token each; no padding token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)} | {END_TOKEN: len(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_TOKEN)


def write_tiny_llm(folder: Path, seed: int = 0) -> Path:
    """Write model and tokenizer as a local folder that transformers can load; returns the folder."""
    tiny_model(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
