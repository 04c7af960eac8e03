"""What is refused as an LLM, before anything is trained over it."""

from pathlib import Path

import pytest
import torch
from tiny_llm import tiny_base_llm, tiny_model, tiny_tokenizer, write_tiny_llm
from transformers import (
    BertConfig,
    BertModel,
    BloomConfig,
    BloomModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    T5Config,
    T5Model,
)

from recdistill.errors import InputError
from recdistill.teachers.ilora.base_llm import BaseLLM, check_causal, load_base_llm

SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def bert() -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(BertConfig(**SMALL, intermediate_size=64))


def t5() -> PreTrainedModel:
    return T5Model(T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))


def load(folder: Path, **options: bool) -> BaseLLM:
    return load_base_llm(str(folder), gguf=None, cache=folder, dtype=torch.bfloat16, **options)


@pytest.mark.parametrize(
    ("model", "said"),
    [(bert, "its states look at later tokens, as an encoder's do"), (t5, "does not read tokens alone")],
)
def test_only_a_causal_llm_is_taken(tmp_path: Path, model, said: str) -> None:
    model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"llm={tmp_path}: {said}.*give a causal") as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("causal_lm", [False, True])
def test_a_causal_llm_is_taken_with_or_without_its_head(tmp_path: Path, causal_lm: bool) -> None:
    assert load(write_tiny_llm(tmp_path), causal_lm=causal_lm).hidden_size == 32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_precision_hides_or_feigns_a_look_ahead(dtype: torch.dtype) -> None:
    check_causal(tiny_model().to(dtype), "tiny")
    encoder = bert().to(dtype).eval()
    with pytest.raises(InputError, match="look at later tokens"):
        check_causal(encoder, "bert")


def test_it_knows_how_many_tokens_it_reads() -> None:
    assert tiny_base_llm().most_tokens == 2048
    gpt2 = GPT2Model(GPT2Config(vocab_size=300, n_positions=77, n_embd=32, n_layer=1, n_head=4))
    assert BaseLLM(gpt2, None, "gpt2", "").most_tokens == 77
    bloom = BloomModel(BloomConfig(vocab_size=300, hidden_size=32, n_layer=1, n_head=4))
    assert BaseLLM(bloom, None, "bloom", "").most_tokens is None
