"""A tiny random llama with a real tokenizer, made in memory: an LLM for checks, which downloads nothing."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

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
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>" if begin else None, pad_token="<end>"
    )


def tiny_base_llm(dtype: torch.dtype = torch.float32, causal_lm: bool = False) -> BaseLLM:
    """The tiny llama as teachers take it: frozen, with or without its language-model head."""
    whole = tiny_model()
    model: PreTrainedModel = whole if causal_lm else whole.model
    torch.nn.Module.to(model, dtype)
    model.requires_grad_(False)
    return BaseLLM(model, tiny_tokenizer(), "tiny", weights_fingerprint(model))
