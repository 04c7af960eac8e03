"""A frozen LLM's readings against states computed text by text, without padding."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llm import tiny_model, tiny_tokenizer

from recdistill.data.pinned_models import LLMS
from recdistill.errors import InputError
from recdistill.teachers.ilora import llm_source
from recdistill.teachers.ilora.text_reading import TEMPLATES
from recdistill.views.build import build_view
from recdistill.views.llm import LLMOptions
from recdistill.views.view import ViewContext

TEXTS = ["Toy Story (1995)", "Star Wars", "a", "", "ünï 七人の侍"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_source, "compute_dtype", lambda device: torch.float32)


def view_of(folder: Path, reading: str, **more):
    return build_view("llm", LLMOptions(view_llm=str(folder), llm_reading=reading, **more))


@torch.no_grad()
def states_of(ids: list[int]) -> torch.Tensor:
    """Last hidden states [T, H] of one row."""
    return tiny_model().model(input_ids=torch.tensor([ids]))[0][0]


def tokens(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_mean_is_of_the_texts_own_tokens(tiny_llm_folder: Path) -> None:
    found = view_of(tiny_llm_folder, "mean").vectors(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        states = states_of([0, *tokens(f" {text}")])
        np.testing.assert_allclose(vector, states[1:].mean(dim=0), atol=1e-5)


def test_vectors_of_another_tokenizer_are_not_taken_for_its(tiny_llm_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_llm_folder, other)
    path = other / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 7}))
    here, there = (view_of(folder, "mean") for folder in (tiny_llm_folder, other))
    assert here.weights() == there.weights()
    assert here.cache_identity() != there.cache_identity()


def test_prompt_is_the_last_state(tiny_llm_folder: Path) -> None:
    found = view_of(tiny_llm_folder, "prompt").vectors(TEXTS)
    before, _, after = TEMPLATES["prompt"]
    for text, vector in zip(TEXTS, found, strict=True):
        states = states_of([0, *tokens(before), *tokens(f" {text}"), *tokens(after)])
        np.testing.assert_allclose(vector, states[-1], atol=1e-5)


def test_echo_is_the_mean_of_the_second_time(tiny_llm_folder: Path) -> None:
    found = view_of(tiny_llm_folder, "echo").vectors(TEXTS)
    before, between, _ = TEMPLATES["echo"]
    for text, vector in zip(TEXTS, found, strict=True):
        own = tokens(f" {text}")
        states = states_of([0, *tokens(before), *own, *tokens(between), *own])
        np.testing.assert_allclose(vector, states[-len(own) :].mean(dim=0), atol=1e-5)


@pytest.mark.parametrize("reading", TEMPLATES)
def test_long_texts_are_cut_to_the_option_and_to_the_llms_positions(tiny_llm_folder: Path, reading: str) -> None:
    long = "word " * 3000
    view = view_of(tiny_llm_folder, reading, text_tokens=10)
    view.vectors([long])
    assert view.cost([long]).tokens < 100
    whole = view_of(tiny_llm_folder, reading, text_tokens=100_000)
    whole.vectors([long])
    assert 2000 <= whole.cost([long]).tokens <= 2048


def test_another_reading_another_llm_and_other_weights_are_another_identity(tiny_llm_folder: Path) -> None:
    one, other = view_of(tiny_llm_folder, "mean").identity(), view_of(tiny_llm_folder, "echo").identity()
    assert one != other
    assert one["weights"] == other["weights"]
    assert str(tiny_llm_folder.parent) not in str(one)


def test_a_choice_of_readings_is_refused_here() -> None:
    with pytest.raises(InputError, match=r"^llm_reading=mean/echo: is a choice for validation"):
        build_view("llm", LLMOptions(llm_reading="mean/echo"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["./nowhere", "smolm2-135m", ""])
def test_a_name_that_can_be_no_llm_is_told_of_this_option(name: str) -> None:
    with pytest.raises(InputError, match=f"^view_llm={name}: "):
        build_view("llm", LLMOptions(view_llm=name)).check()


def test_the_alias_is_pinned() -> None:
    assert build_view("llm").pinned() == LLMS["smollm2-135m"].sha256
    assert build_view("llm", LLMOptions(view_llm="gemma3-270m")).terms() == LLMS["gemma3-270m"].terms
    assert build_view("llm", LLMOptions(view_llm="some/model")).pinned() == ""


def test_the_context_names_the_device(tiny_llm_folder: Path) -> None:
    context = ViewContext(torch.device("cpu"))
    view = build_view("llm", LLMOptions(view_llm=str(tiny_llm_folder)), context)
    assert next(view.model().model.parameters()).device.type == "cpu"
    assert not view.model().model.config.use_cache
