"""What is refused as an LLM, before anything is trained over it."""

from pathlib import Path

import pytest
import torch
from tiny_families import tiny_config
from tiny_llm import tiny_base_llm, tiny_model, tiny_tokenizer, write_tiny_llm
from transformers import (
    AutoModel,
    BertConfig,
    BertLMHeadModel,
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
from recdistill.teachers.ilora.base_llm import BaseLLM, check_causal, check_embeddings, load_base_llm, token_rows
from recdistill.teachers.ilora.llm_source import local_configuration
from recdistill.teachers.ranking.model import BackboneTables, RankingShape, build_ranking_model

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


def test_a_padding_token_beyond_the_embedding_is_read_by_nothing(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 300
    tokenizer.save_pretrained(folder)
    llm = load(folder)
    assert llm.tokenizer.pad_token_id == 0
    assert token_rows(llm.model) == 300
    llm.check_tokens([0, 299], [])


def test_a_token_beyond_the_embedding_is_refused_where_a_text_has_it(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["Heat"])
    tokenizer.save_pretrained(folder)
    llm = load(folder)
    llm.check_tokens(llm.tokenizer("He")["input_ids"])
    with pytest.raises(
        InputError, match=r"token 300 \(Heat\), and its embedding has 300 rows; give the tok"
    ) as refused:
        llm.check_tokens(llm.tokenizer("Heat")["input_ids"])
    assert "\n" not in str(refused.value)
    shape = RankingShape(
        rank=4, alpha=8, dropout=0.0, experts=2, gate="linear", residual=True, packing=True, context=2,
        plain_titles=False,
    )  # fmt: skip
    tables = BackboneTables(torch.randn(2, 8), torch.randn(2, 8))
    with pytest.raises(InputError, match="gives token 300"):
        build_ranking_model(llm, shape, ["Heat", "Net"], tables)


def test_code_of_a_model_is_not_run_and_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("standard input was read")

    monkeypatch.setattr("builtins.input", asked)
    (tmp_path / "config.json").write_text(
        '{"model_type": "strange", "auto_map": {"AutoConfig": "strange.Strange", "AutoModel": "strange.Model"}}'
    )
    (tmp_path / "strange.py").write_text("raise SystemExit('its code was run')\n")
    for refuse in (lambda: load(tmp_path), lambda: local_configuration(str(tmp_path))):
        with pytest.raises(InputError, match=f"llm={tmp_path}: ") as refused:
            refuse()
        assert "\n" not in str(refused.value)


def test_the_size_of_states_is_that_of_the_text(tmp_path: Path) -> None:
    model = AutoModel.from_config(tiny_config("gemma3"))
    assert BaseLLM(model, None, "gemma3", "").hidden_size == 32


def test_weights_that_a_checkpoint_lacks_are_the_same_each_time(tmp_path: Path) -> None:
    configuration = BertConfig(**SMALL, intermediate_size=64, is_decoder=True)
    BertLMHeadModel(configuration).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load(tmp_path).fingerprint == load(tmp_path).fingerprint


def test_embeddings_must_be_read_as_the_tokens() -> None:
    model = tiny_model()
    check_embeddings(model, "tiny")
    assert not model.training
    forward = model.forward

    def scaled(inputs_embeds: torch.Tensor | None = None, **named: object) -> object:
        return forward(inputs_embeds=None if inputs_embeds is None else 3 * inputs_embeds + 1, **named)

    model.forward = scaled
    with pytest.raises(InputError, match="llm=tiny: reads the embeddings of tokens otherwise than the tokens"):
        check_embeddings(model, "tiny")

    def of_tokens(input_ids: torch.Tensor, use_cache: bool) -> object:
        return forward(input_ids=input_ids, use_cache=use_cache)

    model.forward = of_tokens
    with pytest.raises(InputError, match="llm=tiny: reads no embeddings in place of tokens"):
        check_embeddings(model, "tiny")
