"""The sentence view against states computed text by text, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llm import write_tiny_llm
from transformers import AutoModel, AutoTokenizer

from recdistill.errors import InputError
from recdistill.views.build import build_view
from recdistill.views.sentence import SentenceOptions

TEXTS = ["Toy Story (1995)", "Star Wars", "a", "word " * 200]


@torch.no_grad()
def test_mean_of_token_states_to_unit_length(tiny_encoder_folder: Path) -> None:
    view = build_view("sentence", SentenceOptions(sentence_model=str(tiny_encoder_folder)))
    found = view.vectors([*TEXTS, ""])
    model, tokenizer = (kind.from_pretrained(tiny_encoder_folder) for kind in (AutoModel, AutoTokenizer))
    for text, vector in zip(TEXTS, found, strict=False):
        ids = tokenizer(text)["input_ids"][:64]  # its positions
        mean = model(input_ids=torch.tensor([ids]))[0][0].mean(dim=0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_text_tokens_cut(tiny_encoder_folder: Path) -> None:
    view = build_view("sentence", SentenceOptions(sentence_model=str(tiny_encoder_folder), text_tokens=4))
    view.vectors(TEXTS)
    assert view.cost(TEXTS[3:]).tokens == 4


def test_a_model_without_padding_token_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_llm(tmp_path / "llm")
    with pytest.raises(InputError, match=r"^sentence_model=.*: its tokenizer has no padding token"):
        build_view("sentence", SentenceOptions(sentence_model=str(folder))).vectors(["a"])


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"^sentence_model=.*: cannot be loaded") as caught:
        build_view("sentence", SentenceOptions(sentence_model=str(tmp_path))).vectors(["a"])
    assert "\n" not in str(caught.value)
