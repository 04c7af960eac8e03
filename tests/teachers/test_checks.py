"""What is refused of a teacher's options before any work, and that the network is never asked."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig, OPTConfig, T5Config

from recdistill.config import TeacherConfig
from recdistill.data.pinned_models import LLMS
from recdistill.errors import InputError
from recdistill.teachers.checks import check_teacher
from recdistill.teachers.ilora.llm_source import converted_models


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, an empty cache."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path / "cache"))


def small_llama(**changes: object) -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return LlamaConfig(**(sizes | {"vocab_size": 50, "num_key_value_heads": 2} | changes))


@pytest.mark.parametrize("teacher", ["ranking", "generative"])
def test_what_can_be_made_passes(tiny_llm_folder: Path, teacher: str) -> None:
    before = torch.get_rng_state()
    check_teacher(TeacherConfig(teacher=teacher))
    check_teacher(TeacherConfig(teacher=teacher, llm=str(tiny_llm_folder)))
    # What is nowhere on this machine is told by its download.
    check_teacher(TeacherConfig(teacher=teacher, llm="some-owner/some-model"))
    check_teacher(TeacherConfig(teacher=teacher, llm="gpt2"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        ("/no/such/model", "llm=/no/such/model: no such file or folder; give a Hugging Face id or a local path"),
        ("./nowhere", "llm=./nowhere: no such file or folder"),
        ("nowhere.gguf", "llm=nowhere.gguf: no such file or folder"),
        ("smollm2", r"llm=smollm2: there is no such alias \(nearest: smollm2-135m\)"),
        ("SmolLM-135M", r"llm=SmolLM-135M: there is no such alias \(nearest: smollm2-135m\)"),
        ("", "llm=: is empty"),
    ],
)
def test_an_llm_that_is_nowhere_is_refused(llm: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        check_teacher(TeacherConfig(llm=llm))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_refused(tiny_llm_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: the folder holds no config\.json"):
        check_teacher(TeacherConfig(llm=str(tmp_path / "empty")))
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"weights\.bin: is a file, but no \.gguf file"):
        check_teacher(TeacherConfig(llm=str(tmp_path / "weights.bin")))
    broken = shutil.copytree(tiny_llm_folder, tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(InputError, match="broken: its configuration cannot be read"):
        check_teacher(TeacherConfig(llm=str(broken)))


def test_4_bits_need_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="load_in_4bit=true: needs bitsandbytes; pip install bitsandbytes"):
        check_teacher(TeacherConfig(load_in_4bit=True))


@pytest.mark.parametrize(
    ("configuration", "teacher", "said"),
    [
        (T5Config(), "ranking", "is an encoder and a decoder; give a causal"),
        (
            OPTConfig(hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16),
            "ranking",
            "has states of 32 and token embeddings of 16; give one where both are alike",
        ),
        (BertConfig(num_hidden_layers=1), "ranking", "its states look at later tokens"),
        (small_llama(max_position_embeddings=64), "ranking", "teacher_window=40: makes prompts of 80 tokens or more"),
        (small_llama(max_position_embeddings=40), "generative", "candidates=20: makes prompts of 42 tokens or more"),
    ],
)
def test_an_llm_that_cannot_carry_a_teacher_is_refused(
    configuration: object, teacher: str, said: str, tmp_path: Path
) -> None:
    configuration.save_pretrained(tmp_path / "llm")
    with pytest.raises(InputError, match=f"llm={tmp_path / 'llm'}.*{said}|{said}.*llm={tmp_path / 'llm'}") as caught:
        check_teacher(TeacherConfig(llm=str(tmp_path / "llm"), teacher=teacher))
    assert "\n" not in str(caught.value)


def test_an_llm_without_a_head_writes_no_answers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_text_model", "vocab_size": 50}))
    with pytest.raises(InputError, match="predicts no tokens, as teacher=generative needs"):
        check_teacher(TeacherConfig(llm=str(tmp_path), teacher="generative"))


def test_other_architectures_pass(tmp_path: Path) -> None:
    GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50).save_pretrained(tmp_path)
    check_teacher(TeacherConfig(llm=str(tmp_path)))


def test_a_window_as_long_as_the_llm_reads_passes(tmp_path: Path) -> None:
    small_llama(max_position_embeddings=64).save_pretrained(tmp_path)
    check_teacher(TeacherConfig(llm=str(tmp_path), teacher_window=32))
    # A backbone bounds the window, too, and that of a named run is not known.
    check_teacher(TeacherConfig(llm=str(tmp_path), backbone_run_id="abc"))
    check_teacher(TeacherConfig(llm=str(tmp_path), packing=False))
    small_llama(max_position_embeddings=100).save_pretrained(tmp_path)
    check_teacher(TeacherConfig(llm=str(tmp_path), teacher_window=10_000))
    small_llama(max_position_embeddings=30).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="set teacher_history and teacher_window to 15 at most"):
        check_teacher(TeacherConfig(llm=str(tmp_path), teacher_history=20))


def test_an_alias_is_checked_where_it_was_converted_before() -> None:
    folder = converted_models() / f"{LLMS['smollm2-135m'].path.stem}-0123456789ab"
    small_llama(max_position_embeddings=64).save_pretrained(folder)
    with pytest.raises(InputError, match="and llm=smollm2-135m reads 64"):
        check_teacher(TeacherConfig())


def test_the_gate_and_the_policy_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gate_kept=5: must be at most experts=4"):
        check_teacher(TeacherConfig(gate="topk", gate_kept=5))
    file = tmp_path / "policy.py"
    file.write_text("policy = 1\n")
    options = {"query_policy": "custom", "policy_file": str(file), "outputs_token_budget": 100}
    with pytest.raises(InputError, match="defines no function policy"):
        check_teacher(TeacherConfig(**options))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device=cuda: torch finds no CUDA device"):
            check_teacher(TeacherConfig(device="cuda"))
