"""A tiny random llama with a real, locally trained tokenizer: what most tests use for an LLM."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recdistill.teachers.ilora.base_llm import BaseLLM, weights_fingerprint

TEXT = ["Toy Story (1995)", "Twelve Monkeys (1995)", "This user has watched:", "Next:", "Star Wars (1977)"]
HIDDEN_SIZE = 32
VOCABULARY_SIZE = 300


def tiny_model(hidden_size: int = HIDDEN_SIZE) -> LlamaForCausalLM:
    """Two random layers over 300 tokens, always the same."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return LlamaForCausalLM(config).eval()


def tiny_tokenizer(begin: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level tokens; with ``begin``, a special token stands before every text, as llamas have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE, special_tokens=["<end>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>" if begin else None, pad_token="<end>"
    )


def tiny_base_llm(dtype: torch.dtype = torch.float32) -> BaseLLM:
    """The tiny llama as teachers take it: frozen, without head."""
    model = tiny_model().model.to(dtype).requires_grad_(False)
    return BaseLLM(model, tiny_tokenizer(), "tiny", weights_fingerprint(model))


def write_tiny_llm(folder: Path, hidden_size: int = HIDDEN_SIZE) -> Path:
    """The tiny llama and its tokenizer, as a local path for ``llm=``; the tokenizer has no padding token."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    tiny_model(hidden_size).save_pretrained(folder)
    return folder
